package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/replica/restore"
)

// ctl runs one of etcdctl's commands that the program contains.
func (c *cluster) ctl(stdin string, args ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	cmd := exec.Command(binary, append([]string{"ctl", "--data-dir", c.dir}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// running is a command that runs until it is stopped.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

// Write implements io.Writer.
func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *running) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

// ctlOn starts a command that is stopped at the end of the test.
func (c *cluster) ctlOn(args ...string) *running {
	c.t.Helper()
	r := &running{t: c.t, cmd: exec.Command(binary, append([]string{"ctl", "--data-dir", c.dir}, args...)...), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() { _ = r.cmd.Wait(); close(r.done) }()
	c.t.Cleanup(func() { _ = r.cmd.Process.Kill(); <-r.done })
	return r
}

// says waits until the command's output matches a pattern.
func (r *running) says(pattern string) {
	r.t.Helper()
	re := regexp.MustCompile(pattern)
	eventually(r.t, fmt.Sprintf("%q of %v", pattern, r.cmd.Args[4:]), func() bool { return re.MatchString(r.text()) })
}

// interrupt stops the command as a user does.
func (r *running) interrupt() {
	r.t.Helper()
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatalf("%v did not end after an interrupt", r.cmd.Args[4:])
	}
}

// ctlCase is a command and its expected output.
type ctlCase struct {
	args  string // separated by blanks
	stdin string
	code  int
	want  string // a pattern in the output
}

func (c *cluster) ctlAll(cases []ctlCase) {
	c.t.Helper()
	for _, k := range cases {
		code, out, errs := c.ctl(k.stdin, strings.Fields(k.args)...)
		if code != k.code || !regexp.MustCompile(k.want).MatchString(out+errs) {
			c.t.Errorf("ctl %s: exit code %d, want %d and %q\n%s%s", k.args, code, k.code, k.want, out, errs)
		}
	}
}

// TestEtcdctl: every command of etcdctl does the same here as with etcd.
func TestEtcdctl(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a hundred processes")
	}
	c := start(t)
	c.full()
	c.ctlAll(keyCommands)
	c.leaseCommands()
	c.maintenanceCommands()
	c.streamCommands()
	c.mirrorCommand()
	c.ctlAll(userCommands)
}

var keyCommands = []ctlCase{
	{"put a 1", "", 0, `^OK\n$`},
	{"put a", "from input", 0, `^OK\n$`},
	{"put a 2 --prev-kv", "", 0, `^OK\na\nfrom input\n$`},
	{"put a --ignore-value", "", 0, `^OK\n$`},
	{"put none --ignore-value", "", 1, `key not found`},
	{"put b 1", "", 0, `^OK\n$`},
	{"put c 1", "", 0, `^OK\n$`},
	{"get a", "", 0, `^a\n2\n$`},
	{"get a --print-value-only", "", 0, `^2\n$`},
	{"get a c", "", 0, `^a\n2\nb\n1\n$`},
	{"get a --rev=2", "", 0, `^a\n1\n$`},
	{"get a --rev=1000", "", 1, `future revision`},
	{"get --prefix --keys-only --order=DESCEND --sort-by=KEY a", "", 0, `^a\n`},
	{"get --from-key --limit=2 --keys-only b", "", 0, `^b\n\nc\n`},
	{"get --prefix --count-only --write-out=fields a", "", 0, `"Count" : 1`},
	{"get a -w json --consistency=s", "", 0, `"key":"YQ==".*"value":"Mg=="`},
	{"get --prefix --stream a", "", 0, `^a\n2\n`},
	{"txn --interactive", "mod(\"a\") > \"0\"\n\nput d 1\nget a\n\nput d 2\n\n", 0, `(?s)SUCCESS.*OK.*a\n2`},
	{"txn", "value(\"a\") = \"nothing\"\n\nput d 1\n\nput d 2\nget d\n\n", 0, `(?s)FAILURE.*OK.*d\n2`},
	{"del c", "", 0, `^1\n$`},
	{"del c", "", 0, `^0\n$`},
	{"del b --prev-kv", "", 0, `^1\nb\n1\n$`},
	{"del --range a b", "", 0, `^1\n`},
	{"del --from-key d", "", 0, `^1\n$`},
	{"compaction 4", "", 0, `^compacted revision 4\n$`},
	{"compaction 4", "", 1, `has been compacted`},
	{"compaction 5 --physical", "", 0, `^compacted revision 5\n$`},
	{"get a --rev=2", "", 1, `has been compacted`},
	{"version", "", 0, `etcdctl version: 3\.7`},
	{"nonsense", "", 1, `unknown command`},
}

func (c *cluster) leaseCommands() {
	t := c.t
	code, out, errs := c.ctl("", "lease", "grant", "600")
	m := regexp.MustCompile(`^lease ([0-9a-f]+) granted with TTL\(600s\)\n$`).FindStringSubmatch(out)
	if code != 0 || m == nil {
		t.Fatalf("lease grant: %d %s%s", code, out, errs)
	}
	id := m[1]
	c.ctlAll([]ctlCase{
		{"put leased x --lease=" + id, "", 0, `^OK`},
		{"put leased y --ignore-lease", "", 0, `^OK`},
		{"lease list", "", 0, `found 1 leases\n` + id},
		{"lease timetolive --keys " + id, "", 0, `granted with TTL\(600s\), remaining\((600|59\d)s\), attached keys\(\[leased\]\)`},
		{"lease keep-alive --once " + id, "", 0, `keepalived with TTL\(600\)`},
		{"lease revoke " + id, "", 0, `revoked`},
		{"lease revoke " + id, "", 1, `requested lease not found`},
		{"lease timetolive " + id, "", 0, `already expired`},
		{"get leased", "", 0, `^$`},
	})
}

func (c *cluster) maintenanceCommands() {
	t := c.t
	file := filepath.Join(t.TempDir(), "snapshot.db")
	c.ctlAll([]ctlCase{
		{"endpoint health", "", 0, `is healthy: successfully committed proposal`},
		{"endpoint health --cluster", "", 0, `is healthy`},
		{"endpoint status -w table", "", 0, regexp.QuoteMeta(c.client)},
		{"endpoint status -w json --cluster", "", 0, `"version":"3\.7.*"dbSize":\d+`},
		{"endpoint hashkv", "", 0, c.client + `, \d+`},
		{"member list", "", 0, `(?s)started, 127.0.0.1:\d+, https://127.0.0.1:\d+, http://` + c.client + `.*started.*started`},
		{"member list -w json", "", 0, `"members":\[.*"clientURLs"`},
		{"alarm list", "", 0, `^$`},
		{"alarm disarm", "", 0, `^$`},
		{"defrag", "", 0, `Finished defragmenting`},
		{"downgrade validate 4.0.0", "", 1, `invalid downgrade target version`},
		{"snapshot save " + file, "", 0, `Snapshot saved at`},
		{"compact 9999", "", 1, `future revision`},
	})
	if code, out := c.run("snapshot", "save", file, "--data-dir", c.dir); code != 0 ||
		!regexp.MustCompile(`^saved `+regexp.QuoteMeta(file)+`: \d+ bytes, revision \d+, hash [0-9a-f]{8}\n$`).MatchString(out) {
		t.Errorf("snapshot save: %d %q", code, out)
	}
	missing := filepath.Join(t.TempDir(), "missing", "file")
	if code, out := c.run("snapshot", "save", missing, "--data-dir", c.dir); code == 0 || !strings.Contains(out, missing) || strings.Count(out, "\n") != 1 {
		t.Errorf("snapshot save to a directory that does not exist: %d %q", code, out)
	}
	st, err := restore.Status(file)
	if err != nil || st.TotalKey == 0 {
		t.Errorf("status of the snapshot: %+v, %v", st, err)
	}
	if info, err := os.Stat(file); err != nil || info.Size() <= st.TotalSize {
		t.Errorf("the file of the snapshot must be larger than its database: %v, %v", info, err)
	}
	if code, out := c.run("snapshot", "status", file, "--json"); code != 0 || !strings.Contains(out, fmt.Sprintf(`"hash":%d,"revision":%d`, st.Hash, st.Revision)) {
		t.Errorf("snapshot status: %d %s", code, out)
	}
}

// streamCommands runs the commands that do not end by themselves, while the leader is killed.
func (c *cluster) streamCommands() {
	t := c.t
	events := c.ctlOn("watch", "w/", "--prefix", "--prev-kv")
	hook := c.ctlOn("watch", "w/1", "--", "sh", "-c", "echo seen $ETCD_WATCH_VALUE")
	lock := c.ctlOn("lock", "the-lock")
	lock.says(`the-lock/[0-9a-f]+`)
	waits := c.ctlOn("lock", "the-lock", "echo", "held after")
	elected := c.ctlOn("elect", "the-election", "one")
	elected.says(`the-election/[0-9a-f]+\none`)
	listens := c.ctlOn("elect", "--listen", "the-election")
	listens.says(`one`)
	code, out, _ := c.ctl("", "lease", "grant", "5")
	id := strings.Fields(out + " x x")[1]
	kept := c.ctlOn("lease", "keep-alive", id)
	kept.says(`keepalived with TTL\(5\)`)
	if code != 0 {
		t.Fatal(out)
	}
	put := func(key, value string) {
		t.Helper()
		eventually(t, "etcdctl put succeeds", func() bool {
			code, _, _ := c.ctl("", "put", key, value)
			return code == 0
		})
	}
	put("w/0", "before") // watchers start at this revision or a little later
	eventually(t, "both watchers have seen the probe", func() bool {
		put("w/1", "probe")
		return strings.Contains(events.text(), "probe") && strings.Contains(hook.text(), "seen \"probe\"")
	})
	c.nextLeader()
	put("w/1", "after")
	events.says(`PUT\nw/1\nprobe\nw/1\nafter\n`)
	hook.says(`seen "after"`)
	put("w/2", "x")
	if code, out, _ := c.ctl("", "del", "w/2"); code != 0 || out != "1\n" {
		t.Errorf("del: %d %s", code, out)
	}
	events.says(`DELETE\nw/2\nx\nw/2\n`)
	select {
	case <-lock.done:
		t.Errorf("the lock was lost: %s", lock.text())
	case <-elected.done:
		t.Errorf("the election was lost: %s", elected.text())
	case <-kept.done:
		t.Errorf("the lease was lost: %s", kept.text())
	default:
	}
	before := strings.Count(kept.text(), "keepalived")
	eventually(t, "the lease to be renewed under the next leader", func() bool { return strings.Count(kept.text(), "keepalived") > before })
	lock.interrupt()
	waits.says(`held after`)
	elected.interrupt()
	events.interrupt()
}

// mirrorCommand mirrors one prefix to another one of the same cluster.
func (c *cluster) mirrorCommand() {
	mirror := c.ctlOn("make-mirror", "--prefix=src/", "--dest-prefix=dst/", "http://"+c.client)
	eventually(c.t, "the mirror", func() bool {
		code, _, _ := c.ctl("", "put", "src/a", "1")
		_, out, _ := c.ctl("", "get", "dst/a")
		return code == 0 && out == "dst/a\n1\n"
	})
	if code, _, errs := c.ctl("", "del", "src/a"); code != 0 {
		c.t.Error(errs)
	}
	eventually(c.t, "the mirrored deletion", func() bool {
		_, out, _ := c.ctl("", "get", "dst/a")
		return out == ""
	})
	mirror.interrupt()
}

var userCommands = []ctlCase{
	{"user add root:secret", "", 0, `User root created`},
	{"user add anna --new-user-password=pass", "", 0, `User anna created`},
	{"user add anna:x", "", 1, `user name already exists`},
	{"user add cn --no-password", "", 0, `User cn created`},
	{"user list", "", 0, `anna\ncn\nroot\n`},
	{"role add root", "", 0, `Role root created`},
	{"role add writer", "", 0, `Role writer created`},
	{"role grant-permission writer readwrite a z", "", 0, `Role writer updated`},
	{"role grant-permission writer read m --prefix=true", "", 0, `Role writer updated`},
	{"role get writer", "", 0, `(?s)KV Read:.*\[a, z\).*KV Write:.*\[a, z\)`},
	{"role revoke-permission writer m --prefix=true", "", 0, `Permission of .*m.* is revoked`},
	{"role list", "", 0, `root\nwriter\n`},
	{"user grant-role root root", "", 0, `Role root is granted to user root`},
	{"user grant-role anna writer", "", 0, `Role writer is granted`},
	{"user grant-role anna none", "", 1, `role name not found`},
	{"user get anna", "", 0, `Roles: writer`},
	{"auth status", "", 0, `Authentication Status: false`},
	{"auth enable", "", 0, `Authentication Enabled`},
	{"put k v", "", 1, `user name is empty`},
	{"put k v --user=anna:wrong", "", 2, `authentication failed`},
	{"put k v --user=anna:pass", "", 0, `^OK`},
	{"put k v --user=anna --password=pass", "", 0, `^OK`},
	{"put 0 v --user=anna:pass", "", 1, `permission denied`},
	{"user list --user=anna:pass", "", 1, `permission denied`},
	{"user passwd anna --interactive=false --user=root:secret", "new", 0, `Password updated`},
	{"get k --user=anna:pass", "", 2, `authentication failed`},
	{"get k --user=anna:new", "", 0, `^k\nv\n$`},
	{"auth status --user=root:secret", "", 0, `Authentication Status: true`},
	{"endpoint status --user=root:secret", "", 0, `3\.7`},
	{"user revoke-role anna writer --user=root:secret", "", 0, `Role writer is revoked`},
	{"get k --user=anna:new", "", 1, `permission denied`},
	{"role delete writer --user=root:secret", "", 0, `Role writer deleted`},
	{"user delete anna --user=root:secret", "", 0, `User anna deleted`},
	{"user delete root --user=root:secret", "", 1, `invalid auth management`},
	{"auth disable --user=root:secret", "", 0, `Authentication Disabled`},
	{"put k v", "", 0, `^OK`},
}
