<?php
switch ($argv[1]) {
    case "hello":
        echo "hello\n";
        break;
    case "thread": // The language has none: the kernel's own ones of the runtime do.
        echo "thread\n";
        break;
    case "subprocess":
        $child = proc_open(["echo", "child"], [], $pipes);
        exit(proc_close($child));
    case "resolve":
        echo gethostbyname(gethostname()), "\n";
        break;
    case "memory":
        ini_set("memory_limit", "-1");
        $taken = [];
        while (true) {
            $taken[] = str_repeat("x", 1 << 20);
        }
}
