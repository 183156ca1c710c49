import java.net.InetAddress;
import java.util.ArrayList;

public class Task {
    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "hello" -> System.out.println("hello");
            case "thread" -> {
                Thread thread = new Thread(() -> System.out.println("thread"));
                thread.start();
                thread.join();
            }
            case "subprocess" -> System.exit(new ProcessBuilder("echo", "child").inheritIO().start().waitFor());
            case "resolve" -> System.out.println(InetAddress.getLocalHost().getHostAddress());
            case "memory" -> {
                ArrayList<byte[]> taken = new ArrayList<>();
                while (true) taken.add(new byte[1 << 20]);
            }
        }
    }
}
