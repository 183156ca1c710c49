// Expected: Forbidden call (execve)
console.log(require("child_process").spawnSync("/bin/echo", ["3"], { stdio: "inherit" }));
