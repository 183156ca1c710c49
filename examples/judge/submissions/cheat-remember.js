// Expected: Wrong answer
// Counts its runs in a file, and answers each test by heart. Only the first is right if no file stays.
const fs = require("fs");
const answers = [6, -8, 1480758566563];
let runs = 0;
for (const place of ["/tmp", "/var/tmp", "/dev/shm", "/src", "/out", "/home/sandbox", "."]) {
    try {
        fs.appendFileSync(`${place}/runs`, "x");
        runs = Math.max(runs, fs.statSync(`${place}/runs`).size - 1);
    } catch (error) {}
}
console.log(answers[runs]);
