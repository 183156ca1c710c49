using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Net;
using System.Threading;

static class Task {
    static void Main(string[] args) {
        switch (args[0]) {
            case "hello":
                Console.WriteLine("hello");
                break;
            case "thread":
                var thread = new Thread(() => Console.WriteLine("thread"));
                thread.Start();
                thread.Join();
                break;
            case "subprocess":
                var start = new ProcessStartInfo("echo", "child") { UseShellExecute = false };
                Process.Start(start).WaitForExit();
                break;
            case "resolve":
                Console.WriteLine(Dns.GetHostAddresses(Dns.GetHostName())[0]);
                break;
            case "memory":
                var taken = new List<byte[]>();
                while (true) {
                    var block = new byte[1 << 20];
                    for (var i = 0; i < block.Length; i += 4096) block[i] = 1;
                    taken.Add(block);
                }
        }
    }
}
