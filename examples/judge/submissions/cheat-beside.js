// Expected: Wrong answer
// Looks for the answer beside the input.
const fs = require("fs");
try {
    console.log(fs.readFileSync(fs.readlinkSync("/proc/self/fd/0").replace(".in", ".out"), "utf8"));
} catch (error) {
    console.log("none");
}
