// Expected: Accepted
const words = require("fs").readFileSync(0, "utf8").split(/\s+/).filter(Boolean);

console.log(String(words.map(BigInt).reduce((sum, number) => sum + number, 0n)));
