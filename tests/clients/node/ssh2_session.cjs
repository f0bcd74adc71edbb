// A session with npm's ssh2; the endpoint comes as JSON on standard input; arguments: the packages' folder, the remote folder.
const assert = require("node:assert/strict");
const { randomBytes } = require("node:crypto");
const { readFileSync, writeFileSync } = require("node:fs");
const { promisify } = require("node:util");

const { Client } = require(`${process.argv[2]}/node_modules/ssh2`);
const folder = process.argv[3];
const end = JSON.parse(readFileSync(0));

/** Connects by password, or by the answer to a question. */
function connect(interactive) {
    return new Promise((done, fail) => {
        const client = new Client();
        client.on("ready", () => done(client)).on("error", fail);
        client.on("keyboard-interactive", (name, words, language, prompts, finish) => {
            assert.equal(prompts.length, 1);
            assert.equal(prompts[0].echo, false);
            finish([end.password]);
        });
        const how = interactive ? { authHandler: ["keyboard-interactive"], tryKeyboard: true } : { password: end.password };
        client.connect({ host: end.host, port: end.port, username: end.user, readyTimeout: 10000, ...how });
    });
}

/** Opens SFTP, every call of which returns a promise. */
async function open(client) {
    const sftp = await promisify(client.sftp.bind(client))();
    const call = (name) => promisify(sftp[name].bind(sftp));
    return { sftp, call };
}

async function session() {
    const client = await connect(false);
    const { sftp, call } = await open(client);
    const at = (name) => `${folder}/${name}`;
    const data = randomBytes(5_000_003);
    writeFileSync("local.bin", data);
    await call("fastPut")("local.bin", at("fast.bin"), { concurrency: 32 });
    assert.equal((await call("stat")(at("fast.bin"))).size, data.length);
    await call("fastGet")(at("fast.bin"), "back.bin");
    assert.deepEqual(readFileSync("back.bin"), data);
    await call("writeFile")(at("text.txt"), "one\n");
    await call("appendFile")(at("text.txt"), "two\n");
    assert.equal((await call("readFile")(at("text.txt"))).toString(), "one\ntwo\n");
    await new Promise((done, fail) => {
        const stream = sftp.createWriteStream(at("stream.bin"));
        stream.on("close", done).on("error", fail);
        for (let from = 0; from < data.length; from += 50_000) stream.write(data.subarray(from, from + 50_000));
        stream.end();
    });
    const pieces = [];
    for await (const piece of sftp.createReadStream(at("stream.bin"), { start: 100, end: 4_000_099 })) pieces.push(piece);
    assert.deepEqual(Buffer.concat(pieces), data.subarray(100, 4_000_100));
    await call("mkdir")(at("ünï + #1"));
    await call("rename")(at("text.txt"), at("ünï + #1/moved.txt"));
    await assert.rejects(call("rename")(at("fast.bin"), at("stream.bin")), "a plain rename must not replace");
    await call("ext_openssh_rename")(at("fast.bin"), at("stream.bin"));
    const listed = await call("readdir")(at("ünï + #1"));
    assert.deepEqual(listed.map((entry) => entry.filename), ["moved.txt"]);
    assert.match(listed[0].longname, /^-rw/);
    await call("utimes")(at("stream.bin"), 981173106, 981173106);
    await call("chmod")(at("stream.bin"), 0o640);
    const seen = await call("stat")(at("stream.bin"));
    assert.deepEqual([seen.mtime, seen.mode & 0o777], [981173106, 0o640]);
    await call("symlink")("stream.bin", at("link"));
    assert.equal(await call("readlink")(at("link")), "stream.bin");
    assert.equal((await call("lstat")(at("link"))).isSymbolicLink(), true);
    const space = await call("ext_openssh_statvfs")(at("."));
    assert.ok(Number(space.f_blocks) > 0, JSON.stringify(space, (_, value) => String(value)));
    await assert.rejects(call("stat")(at("nothing")), (error) => error.code === 2);
    await assert.rejects(promisify(client.exec.bind(client))("id"));
    await call("unlink")(at("link"));
    client.end();

    const asked = await connect(true);
    const again = await open(asked);
    assert.equal((await again.call("readFile")(at("ünï + #1/moved.txt"))).toString(), "one\ntwo\n");
    asked.end();
    console.log("one session by password, one by question");
}

session().catch((error) => {
    console.error(error.stack);
    process.exit(1);
});
