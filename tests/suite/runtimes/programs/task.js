const tasks = {
  hello: () => console.log("hello"),
  thread: () => new (require("worker_threads").Worker)("console.log('thread')", { eval: true }),
  subprocess: () => console.log(require("child_process").execFileSync("echo", ["child"]).toString()),
  resolve: () => require("dns").lookup(require("os").hostname(), (error, address) => {
    if (error) throw error;
    console.log(address);
  }),
  memory: () => {
    const taken = [];
    for (;;) taken.push(new Array(1 << 17).fill(taken.length + 0.5));
  },
};
tasks[process.argv[2]]();
