// Expected: Wrong answer
// Looks for the answer, and for its own source, among its resources.
public class Main {
    public static void main(String[] args) throws Exception {
        for (String name : new String[] {"/1.out", "/../1.out", "/../tests/1.out", "/../src/Main.java"}) {
            try (var found = Main.class.getResourceAsStream(name)) {
                System.out.println(found == null ? "none" : new String(found.readAllBytes()));
            }
        }
    }
}
