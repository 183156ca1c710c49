import assert from "node:assert";
import fs from "node:fs";
import http from "node:http";
import test from "node:test";

test("listens and writes", async () => {
  fs.writeFileSync("/tmp/x", "", { flag: "wx" });
  const server = http.createServer((_, response) => response.end("hello"));
  await new Promise((resolve, reject) => server.on("error", reject).listen(8080, "127.0.0.1", resolve));
  const answer = await fetch("http://127.0.0.1:8080/");
  assert.strictEqual(await answer.text(), "hello");
  server.close();
  server.closeAllConnections();
});
