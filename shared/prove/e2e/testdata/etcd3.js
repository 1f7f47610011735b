// A client of another language and of other people: the npm package etcd3. Its
// argument is an address. It says "ready" when the leader is to be killed, goes on with a line of
// input, and says "done" at the end. Whatever is not as it should be ends it with a reason.
'use strict';
const assert = require('node:assert');
const readline = require('node:readline');
const { Etcd3, EtcdLockFailedError, GRPCUnavailableError } = require('etcd3');

const hosts = process.argv[2];
const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const tell = (what) => process.stdout.write(`${what}\n`);

// again repeats what can be repeated, as applications do when they are told
// "unavailable" while the next leader takes over.
async function again(f) {
  for (const end = Date.now() + 30000; ; await new Promise((ok) => setTimeout(ok, 20))) {
    try {
      return await f();
    } catch (err) {
      const transient = err instanceof GRPCUnavailableError || /unavailable|circuit|reset|closed|Connection dropped/i.test(String(err.message));
      if (!transient || Date.now() > end) throw err;
    }
  }
}

async function until(what, f) {
  for (const end = Date.now() + 30000; !f(); await new Promise((ok) => setTimeout(ok, 10))) {
    if (Date.now() > end) throw new Error(`timed out: ${what}`);
  }
}

async function keys(client) {
  await client.put('js/a').value('1');
  assert.equal(await client.get('js/a').string(), '1');
  await client.put('js/b').value(Buffer.from([0, 255, 10]));
  assert.deepEqual(await client.get('js/b').buffer(), Buffer.from([0, 255, 10]));
  assert.deepEqual(Object.keys(await client.getAll().prefix('js/')), ['js/a', 'js/b']);
  assert.equal(await client.getAll().prefix('js/').count(), 2);
  assert.equal((await client.delete().key('js/b')).deleted, '1');
  assert.equal(await client.get('js/b').string(), null);
}

async function transactions(client, from, to) {
  const swap = () => client.if('js/a', 'Value', '==', from)
    .then(client.put('js/a').value(to), client.get('js/a'))
    .else(client.get('js/a'))
    .commit();
  assert.equal((await swap()).succeeded, true);
  const second = await swap();
  assert.equal(second.succeeded, false);
  assert.equal(second.responses[0].response_range.kvs[0].value.toString(), to);
}

async function users(client) {
  await client.role('root').create().catch((err) => assert.match(err.message, /already exists/));
  const reader = client.role('js-reader');
  await reader.create();
  await reader.grant({ permission: 'Read', key: 'js/a' });
  await client.user('root').create('secret');
  await client.user('root').addRole('root');
  await client.user('anna').create('pass');
  await client.user('anna').addRole('js-reader');
  await client.auth.authEnable();
  const root = new Etcd3({ hosts, auth: { username: 'root', password: 'secret' } });
  const anna = new Etcd3({ hosts, auth: { username: 'anna', password: 'pass' } });
  const wrong = new Etcd3({ hosts, auth: { username: 'anna', password: 'wrong' } });
  await assert.rejects(client.put('js/a').value('x'), /user name is empty/);
  await assert.rejects(wrong.get('js/a').string(), /authentication failed/);
  assert.equal(await anna.get('js/a').string(), '3');
  await assert.rejects(anna.put('js/a').value('x'), /permission denied/);
  await root.put('js/a').value('4');
  return { root, anna, close: () => [root, anna, wrong].forEach((c) => c.close()) };
}

async function main() {
  const client = new Etcd3({ hosts });
  await keys(client);
  await transactions(client, '1', '2');

  const lease = client.lease(10);
  const lost = [];
  lease.on('lost', (err) => lost.push(err));
  await lease.put('js/leased').value('x');
  const lock = client.lock('js/lock').ttl(20);
  await lock.acquire();
  const seen = [];
  const watcher = await client.watch().prefix('js/w').create();
  watcher.on('put', (kv) => seen.push(kv.value.toString()));
  await client.put('js/w').value('before');
  await until('the first event', () => seen.length === 1);

  tell('ready');
  await input.next();
  await again(() => client.put('js/w').value('after'));
  await until('the event under the next leader', () => seen.includes('after'));
  assert.deepEqual(seen, ['before', 'after']);
  assert.equal(await again(() => client.get('js/leased').string()), 'x');
  assert.ok(await again(() => lease.keepaliveOnce()));
  assert.deepEqual(lost, []);
  await assert.rejects(again(() => client.lock('js/lock').acquire()), EtcdLockFailedError);
  await lock.release();
  await client.lock('js/lock').acquire().then((l) => l.release());
  await transactions(client, '2', '3');
  await watcher.cancel();
  await lease.revoke();
  assert.equal(await client.get('js/leased').string(), null);

  const { root, anna, close } = await users(client);
  tell('ready');
  await input.next();
  // The tokens of before are good with the next leader.
  assert.equal(await again(() => anna.get('js/a').string()), '4');
  await assert.rejects(again(() => anna.put('js/a').value('x')), /permission denied/);
  await again(() => root.auth.authDisable());
  close();
  assert.equal(await client.get('js/a').string(), '4');
  client.close();
  tell('done');
  process.exit(0);
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});
