// Expected: Runtime error (exit 1)
import java.net.Socket;

class Main {
    public static void main(String[] arguments) throws Exception {
        System.out.println(new Socket("127.0.0.1", 80));
    }
}
