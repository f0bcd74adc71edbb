// The console in Chromium: an administrator's and an ordinary user's way through it. The folder of the packages is the
// argument; where the gateway is, who signs in, and where files and pictures go come as JSON on standard input.
"use strict";
const assert = require("node:assert/strict");
const { execFileSync, spawnSync } = require("node:child_process");
const { mkdirSync, readFileSync, writeFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const path = require("node:path");

const packages = createRequire(`${process.argv[2]}/package.json`);
const { chromium } = packages("playwright-core");
const axe = readFileSync(packages.resolve("axe-core/axe.min.js"), "utf8");
const { base, sftp, users, local, pictures } = JSON.parse(readFileSync(0, "utf8"));
const HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>";
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const counts = { pages: 0, pictures: 0 };

/** What a page is held to wherever the way leads: nothing runs that is stored, nothing is refused by the policy. */
function watched(page) {
  page.on("dialog", dialog => dialog.dismiss().then(() => assert.fail(`a dialog opened: ${dialog.message()}`)));
  page.on("pageerror", error => assert.fail(`a script failed: ${error.message}`));
  page.on("console", message => {
    assert.ok(!/Content.Security.Policy/i.test(message.text()), `the policy refused something: ${message.text()}`);
  });
  page.on("request", request => {
    assert.ok(/^(data|blob):/.test(request.url()) || request.url().startsWith(base), `a request to ${request.url()}`);
  });
  return page;
}

/** Holds the page that is open to axe's rules, to a screen of 360 pixels, and to its own. */
async function judged(page) {
  counts.pages += 1;
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const grave = violations.filter(fault => ["serious", "critical"].includes(fault.impact));
  const words = grave.map(fault => `${fault.id}: ${fault.nodes.map(node => node.html).slice(0, 3).join(" ")}`);
  assert.deepEqual(words, [], `axe on ${page.url()}`);
  const size = page.viewportSize();
  for (const screen of [{ width: 360, height: 740 }, size]) {
    await page.setViewportSize(screen);
    const [whole, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(whole <= seen, `${page.url()} is ${whole} pixels wide on a screen of ${seen}`);
  }
}

async function picture(page, name) {
  counts.pictures += 1;
  await page.screenshot({ path: path.join(pictures, `${name}.png`) });
}

async function opened(page, address, status = 200) {
  const answer = await page.goto(base + address);
  assert.equal(answer.status(), status, address);
  await judged(page);
}

async function signIn(page, { login, token }) {
  await page.goto(`${base}/console/`);
  await judged(page);
  await page.getByLabel("User name").fill(login);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "My tokens" }).waitFor();
  await judged(page);
}

/** Makes a token by hand, in the tree's picker and with the copy button, and returns its secret. */
async function makeToken(page, name, model, folder) {
  await page.goto(`${base}/console/tokens`);
  await page.getByRole("link", { name: "New token" }).click();
  await page.getByLabel("Name", { exact: true }).fill(name);
  if (model === "hard") {
    await page.getByRole("radio", { name: "Hard limit" }).check();
    await page.getByLabel("Expires in").fill("20");
    await page.locator("[name=life_unit]").selectOption("m");
  } else {
    await page.getByRole("radio", { name: "Sliding window" }).check();
    await page.getByLabel("Expires if it is not used for").fill("10");
    await page.locator("[name=window_unit]").selectOption("m");
  }
  await page.getByRole("button", { name: /^Browse/ }).first().click();
  const dialog = page.getByRole("dialog");
  for (const step of folder.slice(0, -1)) await dialog.getByRole("button", { name: `Open ${step}`, exact: true }).click();
  await dialog.getByText(folder.at(-1), { exact: true }).waitFor();
  await judged(page);
  await dialog.getByRole("button", { name: folder.at(-1), exact: true }).click();
  assert.equal(await page.locator("[name=scope_path]").first().inputValue(), `/${folder.join("/")}`);
  await judged(page);
  await page.getByRole("button", { name: "Create token" }).click();
  await page.getByRole("heading", { name: "Copy the secret now" }).waitFor();
  await judged(page);
  return copied(page);
}

async function copied(page) {
  await page.getByRole("button", { name: "Copy", exact: true }).first().click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  const secret = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(secret, /^pgt_[A-Za-z0-9]{8}\.[A-Za-z0-9]{38}$/);
  assert.ok(await page.locator(".qr svg").isVisible());
  return secret;
}

const id = secret => secret.slice(4, 12);

/** Asks rclone for what is in a folder; null where it is refused. */
function listed(login, secret, folder) {
  const password = execFileSync("rclone", ["obscure", "-"], { input: secret }).toString().trim();
  const env = { ...process.env, HOME: local, RCLONE_WEBDAV_URL: `${base}/dav${folder}`, RCLONE_WEBDAV_USER: login,
    RCLONE_WEBDAV_PASS: password, RCLONE_CONFIG: "/dev/null" };
  const done = spawnSync("rclone", ["lsf", ":webdav:", "--retries", "1", "--low-level-retries", "1"], { env });
  return done.status === 0 ? done.stdout.toString().split("\n").filter(Boolean).sort() : null;
}

/** Mounts what a token reaches over SFTP for the length of some work. */
async function mounted(login, secret, folder, work) {
  const point = path.join(local, `mount-${id(secret)}`);
  mkdirSync(point, { recursive: true });
  const options = "password_stdin,dir_cache=no,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,NumberOfPasswordPrompts=1";
  execFileSync("sshfs", ["-p", String(sftp.port), "-o", options, `${login}@${sftp.host}:${folder}`, point], { input: `${secret}\n` });
  try {
    await work(point);
  } finally {
    spawnSync("fusermount3", ["-uz", point]);
  }
}

/** What `ls` has to say of a mounted folder: its names, or null where that fails. */
function names(point) {
  const done = spawnSync("ls", [point], { timeout: 10_000 });
  return done.status === 0 ? done.stdout.toString().split("\n").filter(Boolean) : null;
}

async function lastUsed(page, secret) {
  await page.goto(`${base}/console/tokens/${id(secret)}`);
  return page.locator("#last-used dd").innerText();
}

/** A token's whole life: made, used, narrowed, given another secret, taken back. */
async function life(page, { login, home }) {
  for (const model of ["hard", "auto"]) {
    const secret = await makeToken(page, `${model} of ${login} ${HOSTILE}`, model, [login, "Photos"]);
    await opened(page, `/console/tokens/${id(secret)}`);
    if (model === "hard" && login === users.admin.login) {
      await page.locator("summary", { hasText: "rclone" }).click();
      await picture(page, "token");
    }
    assert.equal(await page.locator("#last-used dd").innerText(), "not yet");
    assert.deepEqual(listed(login, secret, `${home}/Photos`), ["Summer/"]);
    assert.equal(listed(login, secret, `${home}/Private`), null, "what is beside the scope");
    assert.match(await lastUsed(page, secret), /webdav from .*rclone/s, "the use is shown");

    await page.getByRole("link", { name: "Edit", exact: true }).click();
    await judged(page);
    await page.getByLabel("Name", { exact: true }).fill(`${model}, narrowed`);
    await page.locator("[name=scope_permission]").first().selectOption("r");
    await page.getByRole("button", { name: "Save changes" }).click();
    await page.getByRole("heading", { name: `${model}, narrowed` }).waitFor();

    await mounted(login, secret, `${home}/Photos`, async point => {
      assert.deepEqual(names(point), ["Summer"]);
      assert.throws(() => writeFileSync(path.join(point, "new"), "x"), "a narrowed token writes nothing");
    });
    assert.match(await lastUsed(page, secret), /sftp from/, "the last use has moved");

    await page.getByRole("link", { name: "Rotate", exact: true }).click();
    await judged(page);
    await page.getByRole("button", { name: "Rotate token" }).click();
    const next = await copied(page);
    assert.equal(id(next), id(secret));
    assert.equal(listed(login, secret, `${home}/Photos`), null, "the old secret is dead");

    await mounted(login, next, `${home}/Photos`, async point => {
      assert.deepEqual(names(point), ["Summer"]);
      await page.goto(`${base}/console/tokens/${id(next)}/revoke`);
      await judged(page);
      await page.getByRole("button", { name: "Revoke token" }).click();
      await page.locator(".chip.revoked").first().waitFor();
      await new Promise(done => setTimeout(done, 1500));
      assert.ok(!(names(point) || []).includes("Summer"), "the mount of a revoked token still answers");
    });
    assert.equal(listed(login, next, `${home}/Photos`), null);
    await assert.rejects(mounted(login, next, `${home}/Photos`, async () => {}), "a revoked token mounts nothing");
  }
}

/** Makes a token that an SSH key proves, from the key's file, uses it with OpenSSH, and gives it another key by hand. */
async function keyToken(page, { login, home }) {
  const [first, second] = ["first", "second"].map(name => path.join(local, `${name} key of ${login}`));
  for (const key of [first, second]) execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]);
  const line = key => readFileSync(`${key}.pub`, "utf8").trim();
  const fingerprint = key => execFileSync("ssh-keygen", ["-l", "-f", `${key}.pub`]).toString().split(" ")[1];
  const lists = key => {
    const options = ["-F", "none", "-oBatchMode=yes", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null",
      "-oIdentitiesOnly=yes", "-i", key, "-P", String(sftp.port), "-b", "-", `${login}@${sftp.host}`];
    const done = spawnSync("sftp", options, { input: `ls -1 ${home}\n`, timeout: 30_000 });
    return done.status === 0 ? done.stdout.toString() : null;
  };

  await page.goto(`${base}/console/tokens/new`);
  await page.getByLabel("Name", { exact: true }).fill(`key of ${login}`);
  await page.getByText("SSH key instead of a secret").click();
  await page.locator("#ssh-key-file").setInputFiles({ name: "big.pub", mimeType: "text/plain", buffer: Buffer.alloc(20_000, "x") });
  await page.locator("#ssh-key-file").setInputFiles(`${first}.pub`);
  await page.waitForFunction(() => document.getElementById("ssh-key").value);
  assert.equal(await page.getByLabel("Public key").inputValue(), line(first), "what is too long fills nothing in");
  await judged(page);
  await page.getByRole("button", { name: "Create token" }).click();
  await page.getByText(fingerprint(first)).waitFor();
  await judged(page);
  assert.equal(await page.getByText("Copy the secret now").count(), 0, "there is no secret");
  const place = page.url();
  const token = place.split("/").at(-1);
  assert.match(lists(first), /Photos/);
  assert.equal(lists(second), null);

  await opened(page, `/console/explain?token=${token}&op=write&path=${home}/Photos`);
  assert.ok(await page.getByText("allowed", { exact: true }).isVisible());
  await page.goto(`${base}/console/tokens/${token}/rotate`);
  await page.getByLabel("New public key").fill(line(second));
  await page.getByRole("button", { name: "Rotate token" }).click();
  await page.getByText(fingerprint(second)).first().waitFor();
  assert.match(lists(second), /Photos/);
  assert.equal(lists(first), null, "the old key is refused at once");
  await page.goto(`${base}/console/tokens/${token}/revoke`);
  await page.getByRole("button", { name: "Revoke token" }).click();
  await page.locator(".chip.revoked").first().waitFor();
  assert.equal(lists(second), null);
}

async function files(page, { login, home }) {
  const place = `/console/files${home}`;
  await opened(page, place);
  const content = `first line\n${HOSTILE}\n`.repeat(1000);
  const file = path.join(local, `letter of ${login}.txt`);
  writeFileSync(file, content);
  await page.locator("#upload").setInputFiles(file);
  await page.getByRole("link", { name: `letter of ${login}.txt`, exact: true }).click();
  await page.getByText("first line").first().waitFor();
  await judged(page);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download" }).click()]);
  assert.equal(readFileSync(await download.path(), "utf8"), content);

  // Dropped on the page.
  await page.goto(base + place);
  const dropped = await page.evaluateHandle(() => {
    const data = new DataTransfer();
    data.items.add(new File(["<script>document.title = 'stored script ran'</script><h1>page</h1>"], "page.html"));
    return data;
  });
  await page.dispatchEvent("main", "drop", { dataTransfer: dropped });
  await page.getByRole("link", { name: "page.html", exact: true }).waitFor();
  for (const stored of [`/console/raw${home}/page.html`, `/dav${home}/page.html`]) {
    const tab = watched(await page.context().newPage());
    const shown = await tab.goto(base + stored).catch(() => null);
    if (shown) {
      assert.match(shown.headers()["content-security-policy"] || "", /sandbox/, stored);
      assert.ok(!(await tab.title()).includes("ran"), stored);
    }
    await tab.close();
  }

  await page.getByText("New folder").click();
  await page.getByLabel("Name", { exact: true }).fill("Ünï folder");
  await page.getByRole("button", { name: "Create folder" }).click();
  await page.getByRole("heading", { name: "Ünï folder" }).waitFor();
  await page.goto(base + place);
  await page.getByRole("link", { name: "Rename Ünï folder" }).click();
  await judged(page);
  await page.getByLabel("New name").fill(HOSTILE.replaceAll("/", "-"));
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByRole("link", { name: HOSTILE.replaceAll("/", "-"), exact: true }).waitFor();
  await judged(page);
  await page.getByRole("link", { name: `Delete letter of ${login}.txt` }).click();
  await judged(page);
  await page.getByRole("button", { name: "Delete the file" }).click();
  await page.getByRole("link", { name: "page.html", exact: true }).waitFor();
  assert.equal(await page.getByRole("link", { name: `letter of ${login}.txt`, exact: true }).count(), 0);
  await opened(page, `${place}/Photos/Summer`);
  await page.getByRole("link", { name: "Create token for this folder" }).click();
  assert.equal(await page.locator("[name=scope_path]").first().inputValue(), `${home}/Photos/Summer`);
}

async function administers(page) {
  const { user, admin } = users;
  await opened(page, "/console/tokens?everybody=1");
  assert.ok((await page.content()).includes(id(user.token)));
  await opened(page, "/console/people");
  await picture(page, "people");
  await opened(page, "/console/people/new");
  await opened(page, `/console/people/${user.login}`);
  await page.getByText("Grant access to a folder or file").click();
  await page.getByLabel("Folder or file", { exact: true }).fill(`/${admin.login}/Photos`);
  await page.getByLabel("Permission", { exact: true }).selectOption("r");
  await page.getByRole("button", { name: "Grant access", exact: true }).click();
  await page.getByRole("button", { name: `Remove access to /${admin.login}/Photos` }).click();
  await page.getByRole("heading", { name: "Access", exact: true }).waitFor();
  assert.equal(await page.getByRole("button", { name: `Remove access to /${admin.login}/Photos` }).count(), 0);
  await opened(page, "/console/policy");
  await opened(page, "/console/audit?span=day");
  await picture(page, "audit");
  await page.getByText("Show as a table").click();
  await judged(page);
  for (const column of ["WebDAV", "SFTP", "API and console", "WebDAV, refused", "SFTP, refused"]) {
    const cells = await page.locator(`.counts td[data-label="${column}"]`).allInnerTexts();
    assert.ok(cells.some(text => parseInt(text, 10) > 0), `the chart shows nothing of ${column}: ${cells}`);
  }
  await opened(page, `/console/explain?token=${id(user.token)}&op=write&path=/${admin.login}/Private`);
  assert.ok(await page.getByText("not allowed", { exact: true }).isVisible());
  await picture(page, "explain");
  await opened(page, "/console/nothing", 404);
  assert.ok(await page.getByRole("button", { name: "Sign out" }).isVisible(), "the way on from a page that is not there");
}

/** Uploads where script is turned off: files of a form, and what is said of one that is there already. */
async function withoutScript(browser, { login, token, home }) {
  const page = watched(await (await browser.newContext({ javaScriptEnabled: false, userAgent: "no-script/1" })).newPage());
  await page.goto(`${base}/console/files${home}`);
  await page.getByLabel("User name").fill(login);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("link", { name: "Photos", exact: true }).waitFor();
  const files = ["one", "two"].map(name => path.join(local, `${name} \u201cof\u201d ${login}.bin`));
  files.forEach((file, at) => writeFileSync(file, Buffer.alloc(700_000 * at + 1, `\r\n--${login}`)));
  const upload = async replace => {
    await page.getByLabel("Files", { exact: true }).setInputFiles(files);
    if (replace) await page.getByLabel("Replace files of the same name").check();
    await page.getByRole("button", { name: "Upload" }).click();
  };
  await upload(false);
  await page.getByRole("link", { name: path.basename(files[1]), exact: true }).waitFor();
  for (const file of files) {
    const name = encodeURIComponent(path.basename(file));
    const raw = await page.context().request.get(`${base}/console/raw${home}/${name}?download=1`);
    assert.ok(readFileSync(file).equals(await raw.body()), `${file} came back as something else`);
  }
  await upload(false);
  await page.getByRole("heading", { name: "Upload incomplete" }).waitFor();
  assert.equal(await page.getByText("It already exists.").count(), 2);
  await page.getByRole("link", { name: "Back to the folder" }).click();
  await upload(true);
  await page.getByRole("link", { name: path.basename(files[0]), exact: true }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.context().close();
}

/** A link on another site's page, such as a mail's, leads to the page for who is signed in. */
async function linkedFromElsewhere(context) {
  const page = await context.newPage();
  await page.route("http://elsewhere.test/", route => route.fulfill({
    contentType: "text/html", body: `<a href="${base}/console/files">to the files</a>` }));
  await page.goto("http://elsewhere.test/");
  await page.getByRole("link", { name: "to the files" }).click();
  await page.getByRole("heading", { name: "Files" }).waitFor();
  await judged(page);
  await page.close();
}

/** Nothing of others is to be seen, wherever one looks. */
async function seesNothing(page) {
  const { admin } = users;
  for (const place of ["/console/tokens", "/console/tokens?everybody=1", "/console/files", "/console/sessions"]) {
    await opened(page, place);
    const text = await page.content();
    assert.ok(!text.includes(admin.login) && !text.includes(id(admin.token)), place);
  }
  for (const [place, status] of [["/console/people", 403], ["/console/policy", 403], ["/console/audit", 403],
    [`/console/tokens?owner=${admin.login}`, 403], [`/console/tokens/${id(admin.token)}`, 404],
    [`/console/files/${admin.login}`, 404]]) {
    await opened(page, place, status);
  }
}

async function main() {
  mkdirSync(pictures, { recursive: true });
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });
  const context = async scheme => {
    const made = await browser.newContext({ viewport: { width: 1200, height: 800 }, colorScheme: scheme });
    await made.grantPermissions(["clipboard-read", "clipboard-write"], { origin: base });
    return made;
  };
  const [light, dark] = [await context("light"), await context("dark")];
  const [admin, user] = [watched(await light.newPage()), watched(await dark.newPage())];

  await admin.goto(`${base}/console/`);
  await picture(admin, "sign-in");
  await admin.getByLabel("User name").fill(users.admin.login);
  await admin.getByLabel("Token").fill("wrong");
  await admin.getByRole("button", { name: "Sign in" }).click();
  await admin.getByRole("alert").waitFor();
  await judged(admin);
  await signIn(admin, users.admin);
  await signIn(user, users.user);

  await files(admin, users.admin);
  await admin.goto(`${base}/console/files${users.admin.home}`);
  await picture(admin, "files");
  await admin.goto(`${base}/console/tokens/new`);
  await picture(admin, "new-token");
  await life(admin, users.admin);
  await keyToken(admin, users.admin);
  await admin.goto(`${base}/console/tokens`);
  await picture(admin, "tokens");
  await administers(admin);

  await linkedFromElsewhere(light);
  await files(user, users.user);
  await withoutScript(browser, users.user);
  await life(user, users.user);
  await keyToken(user, users.user);
  await seesNothing(user);
  await user.goto(`${base}/console/files${users.user.home}`);
  await picture(user, "files-dark");
  await user.setViewportSize({ width: 360, height: 740 });
  await user.goto(`${base}/console/tokens`);
  await picture(user, "tokens-phone");
  await user.setViewportSize({ width: 1200, height: 800 });

  // Another's session is ended by its button, one's own by signing out.
  await opened(admin, "/console/sessions");
  await picture(admin, "sessions");
  await admin.getByRole("button", { name: `Close the session of ${users.user.login} over api` }).first().click();
  await user.goto(`${base}/console/tokens`);
  await user.getByRole("heading", { name: "Sign in" }).waitFor();
  await admin.getByRole("button", { name: "Sign out" }).click();
  await admin.getByRole("heading", { name: "Sign in" }).waitFor();
  await admin.goto(`${base}/console/tokens`);
  await admin.getByRole("heading", { name: "Sign in" }).waitFor();
  await browser.close();
  console.log(`${counts.pages} pages held to axe and to 360 pixels, ${counts.pictures} pictures in ${pictures}`);
}

main().catch(error => {
  // The stack alone: what an assertion adds to it would hide it, since the last lines are shown.
  console.error(error.stack ?? error);
  process.exit(1);
});
