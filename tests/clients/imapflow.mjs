// Drives a running Pillarbox by ImapFlow, two connections on one mailbox; prints "all well" at the end.
import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";

const [modules, ca, port, user, pass] = process.argv.slice(2);
const { ImapFlow } = createRequire(`${modules}/`)("imapflow");

const letter = (subject, more = "") =>
  `From: Bob <bob@example.org>\r\nTo: ${user}\r\nSubject: ${subject}\r\nMessage-ID: <${subject.replace(/\W/g, "")}@example.org>\r\n${more}\r\nbody of ${subject}\r\n`;

function connect(more = {}) {
  const client = new ImapFlow({
    host: "localhost", port: Number(port), secure: true, auth: { user, pass },
    tls: { ca: fs.readFileSync(ca) }, logger: false, qresync: true, ...more,
  });
  client.on("error", (error) => { throw error; });
  return client.connect().then(() => client);
}

/** The next event of a name that fits, while the client idles. */
function heard(client, name, fits = () => true) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no ${name} in 20 s`)), 20000);
    client.on(name, (event) => { if (fits(event)) { clearTimeout(late); resolve(event); } });
  });
}

async function all(client, range, query, options) {
  const rows = [];
  for await (const row of client.fetch(range, query, options)) rows.push(row);
  return rows;
}

const one = await connect();
const two = await connect();
for (const capability of ["CONDSTORE", "QRESYNC", "MOVE", "UIDPLUS", "IDLE", "OBJECTID", "SPECIAL-USE", "COMPRESS=DEFLATE"]) {
  assert(one.capabilities.has(capability), capability);
}
assert(one.enabled.has("QRESYNC") && one.enabled.has("CONDSTORE"));
const special = (await one.list()).map((mailbox) => mailbox.specialUse).filter(Boolean);
for (const use of ["\\Drafts", "\\Sent", "\\Junk", "\\Trash", "\\Archive"]) assert(special.includes(use), use);

// A name beyond ASCII, made, filled, renamed.
await one.mailboxCreate(["Reise", "Größe"]);
await one.mailboxRename("Reise/Größe", "Reise/Maße");
const first = await one.append("Reise/Maße", letter("first"), ["\\Seen", "$later"], new Date(Date.UTC(2026, 1, 2)));
assert.equal(first.uid, 1);
const attachment = Buffer.from(Array.from({ length: 40000 }, (_, i) => i % 251));
await one.append("Reise/Maße", letter("second",
  "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n" +
  "Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n--b\r\nContent-Type: application/octet-stream\r\n" +
  `Content-Disposition: attachment; filename=b.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n${attachment.toString("base64")}\r\n--b--\r\n`));

// What one sees.
const box = await one.mailboxOpen("Reise/Maße");
assert.equal(box.exists, 2);
const rows = await all(one, "1:*", { uid: true, flags: true, envelope: true, bodyStructure: true, internalDate: true, emailId: true, size: true });
assert.deepEqual(rows.map((row) => row.envelope.subject), ["first", "second"]);
assert(rows[0].flags.has("\\Seen") && rows[0].flags.has("$later"));
assert.equal(rows[0].internalDate.getTime(), Date.UTC(2026, 1, 2));
assert(rows[0].emailId && rows[1].bodyStructure.childNodes.length === 2);
const part = await one.download("2", "2");
let bytes = Buffer.alloc(0);
for await (const piece of part.content) bytes = Buffer.concat([bytes, piece]);
assert(bytes.equals(attachment));
assert.deepEqual(await one.search({ body: "grüße" }, { uid: true }), [2]);

// While one idles, two changes flags, brings mail and takes some away: one hears each.
await two.mailboxOpen("Reise/Maße");
const before = two.mailbox.highestModseq;
let expected = heard(one, "flags", (event) => event.flags.has("\\Flagged"));
const idling = one.idle();
await two.messageFlagsAdd({ uid: "2" }, ["\\Flagged"], { uid: true });
const flagged = await expected;
assert(flagged.seq === 2 && BigInt(flagged.modseq) > before, JSON.stringify(flagged, (_, value) => String(value)));
expected = heard(one, "exists", (event) => event.count === 3);
const third = await two.append("Reise/Maße", letter("third"));
await expected;
expected = heard(one, "expunge");
const moved = await two.messageMove("1", "Archive", { uid: true });
assert.equal(moved.uidMap.size, 1);
const gone = await expected;
assert(gone.vanished && gone.uid === 1, JSON.stringify(gone));

// Back the other way: one writes, two hears.
await one.noop();
await idling;
expected = heard(two, "flags", (event) => event.flags.has("\\Answered"));
const others = two.idle();
await one.messageFlagsSet({ uid: String(third.uid) }, ["\\Answered"], { uid: true });
await expected;
expected = heard(two, "expunge");
assert(await one.messageDelete("2", { uid: true }));
assert.equal((await expected).uid, 2);
await two.noop();
await others;
assert.deepEqual((await all(two, "1:*", { uid: true, flags: true })).map((row) => [row.uid, [...row.flags]]), [[third.uid, ["\\Answered"]]]);
const archived = await two.mailboxOpen("Archive");
assert.equal(archived.exists, 1);
assert.equal((await all(two, [...moved.uidMap.values()].join(","), { envelope: true }, { uid: true }))[0].envelope.subject, "first");

// After a break: what changed since, and what has gone.
const since = (await one.mailboxOpen("Reise/Maße")).highestModseq;
await one.logout();
await two.mailboxOpen("Reise/Maße");
await two.messageFlagsAdd("1:*", ["$again"]);
await two.append("Reise/Maße", letter("fourth"));
const back = await connect();
await back.mailboxOpen("Reise/Maße");
const changed = await all(back, "1:*", { uid: true, flags: true }, { changedSince: since });
assert.deepEqual(changed.map((row) => row.uid), [third.uid, third.uid + 1]);
assert(changed[0].flags.has("$again"));
assert((await back.status("Archive", { messages: true, unseen: true, highestModseq: true })).messages === 1);
assert(await back.getQuota("INBOX"));
await two.mailboxClose();
await two.mailboxDelete("Reise/Maße");
assert(!(await two.list()).some((mailbox) => mailbox.path === "Reise/Maße"));
await two.logout();
back.close();
console.log("all well");
