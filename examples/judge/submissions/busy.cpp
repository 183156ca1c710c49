// Expected: CPU time
#include <thread>

static void turn() {
    for (volatile unsigned turn = 0;; turn = turn + 1) {
    }
}

int main() {
    std::thread other(turn);
    turn();
    other.join();
}
