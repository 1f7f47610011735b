package e2e

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// etcd3Modules names a node_modules directory with the npm package etcd3, which
// .ci/run installs.
const etcd3Modules = "DYNAST_ETCD3_MODULES"

// TestNodeClientAcrossLeaderKills: a client in another language continues while two leaders are
// killed. It uses keys, transactions, a lease, a lock, a watch and users.
func TestNodeClientAcrossLeaderKills(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs Node.js")
	}
	modules := os.Getenv(etcd3Modules)
	if modules == "" {
		t.Skip("needs the npm package etcd3: npm install --prefix DIR etcd3@1.1.2, and " + etcd3Modules + "=DIR/node_modules")
	}
	c := start(t)
	cmd := exec.Command(node, "testdata/etcd3.js", c.client)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stderr = c.logs
	in, out := testkit.StartPiped(t, cmd)
	deadline := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
	defer deadline.Stop()
	said := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said = lines.Text()
		if said != "ready" {
			continue
		}
		c.nextLeader()
		if _, err := io.WriteString(in, "go on\n"); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err != nil || said != "done" {
		t.Fatalf("the last line of the client is %q, want \"done\": %v\n%s", said, err, tail(c.logText(), 3000))
	}
}
