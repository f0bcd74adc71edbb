// A session with npm's webdav; the endpoint comes as JSON on standard input, the folder of the packages as argument.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { buffer, text } from "node:stream/consumers";

const { createClient } = await import(`file://${process.argv[2]}/node_modules/webdav/dist/node/index.js`);
const end = JSON.parse(readFileSync(0));
const client = createClient(end.url, { username: end.user, password: end.password });
const names = (items) => items.map((item) => item.basename).sort();

const data = randomBytes(3_000_001);
assert.equal(await client.putFileContents("/data.bin", data), true);
assert.equal(await client.putFileContents("/data.bin", "other", { overwrite: false }), false, "If-None-Match: *");
assert.deepEqual(await client.getFileContents("/data.bin"), data);
assert.equal((await client.stat("/data.bin")).size, data.length);
const first = (await client.stat("/data.bin")).etag;
await client.putFileContents("/data.bin", data.subarray(1));
assert.notEqual((await client.stat("/data.bin")).etag, first);

await client.createDirectory("/a/b c/ünï #1", { recursive: true });
await client.putFileContents("/a/b c/ünï #1/100% + &.txt", "deep");
assert.deepEqual(names(await client.getDirectoryContents("/a", { deep: true })), ["100% + &.txt", "b c", "ünï #1"]);
await client.copyFile("/a", "/copy");
await client.moveFile("/copy/b c/ünï #1/100% + &.txt", "/moved.txt");
assert.equal(await client.getFileContents("/moved.txt", { format: "text" }), "deep");
assert.equal(await client.exists("/copy/b c/ünï #1/100% + &.txt"), false);
assert.equal(await client.exists("/a/b c/ünï #1/100% + &.txt"), true);

const part = await buffer(client.createReadStream("/data.bin", { range: { start: 1000, end: 1999 } }));
assert.deepEqual(part, data.subarray(1001, 2001));
const hash = createHash("sha256");
for await (const piece of client.createReadStream("/data.bin")) hash.update(piece);
assert.equal(hash.digest("hex"), createHash("sha256").update(data.subarray(1)).digest("hex"));
await new Promise((done, fail) => {
    const stream = client.createWriteStream("/streamed.txt", {}, () => done());
    stream.on("error", fail);
    stream.end("of unknown length");
});
assert.equal(await text(client.createReadStream("/streamed.txt")), "of unknown length");
await client.partialUpdateFileContents("/streamed.txt", 3, 9, "UNKNOWN").then(
    async () => assert.match(await client.getFileContents("/streamed.txt", { format: "text" }), /^of UNKNOWN/),
    (error) => assert.match(error.message, /not supported/i));

const lock = await client.lock("/moved.txt");
assert.ok(lock.token);
await assert.rejects(client.putFileContents("/moved.txt", "stolen"), (error) => error.status === 423);
assert.equal(await client.putFileContents("/moved.txt", "kept", { headers: { If: `(<${lock.token}>)` } }), true);
await client.unlock("/moved.txt", lock.token);
// getQuota() asks for allprop, which by RFC 4331 leaves the quota out.
await assert.rejects(client.getFileContents("/nothing"), (error) => error.status === 404);
await client.deleteFile("/a");
assert.equal(await client.exists("/a"), false);

const wrong = createClient(end.url, { username: end.user, password: "wrong" });
await assert.rejects(wrong.getDirectoryContents("/"), (error) => error.status === 401);
console.log("files, streams, ranges, folders, locks");
