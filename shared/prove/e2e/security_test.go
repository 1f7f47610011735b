package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// TestNoSecretIsDisclosed: passwords, tokens, keys and values are in no log at any level, in no
// argument or environment in /proc, in no output of a command, and in no file that other users
// can read.
func TestNoSecretIsDisclosed(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keyFile, logDir := filepath.Join(t.TempDir(), "key.pem"), filepath.Join(t.TempDir(), "logs")
	testkit.WriteKey(t, keyFile, key)
	for kind, flags := range map[string][]string{
		"jwt": {"--client-auth-token", "jwt,sign-method=EdDSA,priv-key=" + keyFile}, "simple": nil,
	} {
		t.Run(kind, func(t *testing.T) {
			page := fmt.Sprintf("127.0.0.1:%d", freePort(t))
			c := newCluster(t, withDashboard(page))
			tokenFile := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(tokenFile, []byte("token-of-the-dashboard-6625"), 0o600); err != nil {
				t.Fatal(err)
			}
			c.up(append(flags, "--log-level", "trace", "--log-directory", logDir+kind, "--dashboard-token-file", tokenFile)...)
			c.full()
			secrets := c.useSecrets()
			secrets["dashboard's token"] = c.useDashboard(page, "token-of-the-dashboard-6625")
			secrets["wrong token"] = "no-token-of-the-dashboard-9"
			c.nextLeader()
			c.full()
			secrets["value"] = "the-value-of-a-key-8842"
			secrets["JWT key"] = pemBody(t, keyFile)[20:60]
			secrets["authority's key"] = pemBody(t, filepath.Join(c.dir, "pki", "ca.key"))
			for what, text := range c.everythingVisible(logDir + kind) {
				for name, secret := range secrets {
					if secret == "" {
						t.Fatalf("the test has no %s to look for", name)
					}
					if strings.Contains(text, secret) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(secret))) {
						t.Errorf("%s contains the %s", what, name)
					}
				}
			}
		})
	}
}

// useSecrets logs in, with a right and a wrong password, and returns the texts that must stay
// secret.
func (c *cluster) useSecrets() map[string]string {
	c.t.Helper()
	ctx, cl := testContext(c.t), c.dial()
	const password, wrong = "pass-word-of-root-1177", "wrong-pass-word-3391"
	must := func(_ any, err error) {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
	}
	must(cl.UserAdd(ctx, "root", password))
	must(cl.UserGrantRole(ctx, "root", "root"))
	must(cl.AuthEnable(ctx))
	login, err := cl.Authenticate(ctx, "root", password)
	must(login, err)
	if _, err := cl.Authenticate(ctx, "root", wrong); err == nil {
		c.t.Fatal("a login with a wrong password succeeded")
	}
	in, err := clientv3.New(clientv3.Config{Endpoints: []string{c.client}, Username: "root", Password: password, DialTimeout: patience})
	must(in, err)
	defer in.Close()
	must(in.Put(ctx, "key", "the-value-of-a-key-8842"))
	must(in.UserChangePassword(ctx, "root", password+"-next"))
	return map[string]string{"password": password, "wrong password": wrong, "token": login.Token}
}

// useDashboard sends the right token and a wrong one, and reads the page.
func (c *cluster) useDashboard(page, token string) string {
	c.t.Helper()
	for given, want := range map[string]int{token: http.StatusOK, "no-token-of-the-dashboard-9": http.StatusUnauthorized} {
		req, err := http.NewRequestWithContext(testContext(c.t), "POST", "http://"+page+"/api/check", strings.NewReader("{}"))
		if err != nil {
			c.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+given)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			c.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			c.t.Errorf("the dashboard with the token %q: status %d, want %d", given, resp.StatusCode, want)
		}
	}
	return token
}

// everythingVisible collects everything that users, operators and other processes can see.
func (c *cluster) everythingVisible(logDir string) map[string]string {
	c.t.Helper()
	told := map[string]string{"standard error": c.logText()}
	logs, err := filepath.Glob(filepath.Join(logDir, "*"))
	if err != nil || len(logs) < 3 {
		c.t.Fatalf("log files: %v, %v", logs, err)
	}
	for _, m := range c.full().Members {
		for _, name := range []string{"cmdline", "environ", "comm", "status"} {
			logs = append(logs, fmt.Sprintf("/proc/%d/%s", m.PID, name))
		}
	}
	_ = filepath.WalkDir(c.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
			logs = append(logs, path) // other users can read it if the directory is opened for them
		}
		return nil
	})
	for _, path := range logs {
		raw, err := os.ReadFile(path)
		if err != nil {
			c.t.Fatal(err)
		}
		told[path] = string(raw)
	}
	for _, args := range [][]string{{"tree"}, {"tree", "--json"}, {"events", "--json"}, {"reload", "--json"}} {
		told["dynast "+strings.Join(args, " ")] = c.order(args...)
	}
	for _, path := range []string{"/metrics", "/health", "/readyz?verbose", "/version"} {
		_, body, err := ask(testContext(c.t), http.DefaultClient, "GET", "http://"+c.client+path, "")
		if err != nil {
			c.t.Fatal(err)
		}
		told[path] = body
	}
	return told
}

// pemBody returns a line from the middle of a key.
func pemBody(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(raw), "\n")[1]
}

// TestUnsafeDataDirectoryIsRefused checks that the error says what to do, and that only the user
// can access what dynast creates.
func TestUnsafeDataDirectoryIsRefused(t *testing.T) {
	c := newCluster(t)
	for mode, want := range map[os.FileMode]string{0o770: "chmod go-w", 0o707: "chmod go-w"} {
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(c.dir, mode); err != nil {
			t.Fatal(err)
		}
		if code, out := c.run("up", "--config", c.config); code != 1 || !strings.Contains(out, want) || !strings.Contains(out, c.dir) {
			t.Errorf("a data directory with mode %04o: exit code %d, want 1\n%s", mode, code, out)
		}
	}
	if os.Getuid() == 0 {
		if err := os.Chmod(c.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(c.dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if code, out := c.run("up", "--config", c.config); code != 1 || !strings.Contains(out, fmt.Sprintf("uid %d", nobody)) {
			t.Errorf("a data directory of another user: exit code %d, want 1\n%s", code, out)
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	c.up()
	c.full()
	for path, want := range map[string]os.FileMode{"": 0o700, "slots": 0o700, "slots/1": 0o700, "pki": 0o700, "pki/ca.key": 0o600, "slots/1/db": 0o600} {
		if info, err := os.Stat(filepath.Join(c.dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has mode %v (error %v), want %v", path, info.Mode(), err, want)
		}
	}
}
