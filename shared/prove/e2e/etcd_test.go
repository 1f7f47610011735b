package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/crypto/bcrypt"
)

// etcdProcess is an environment variable with a configuration. It makes this test program run
// etcd; see TestMain. An etcd within the test process would leave goroutines behind, because its
// services Lock and Election never close their client.
const etcdProcess = "DYNAST_E2E_ETCD"

// etcdConfig configures a single etcd, or a member of an etcd cluster.
type etcdConfig struct{ Name, Dir, Client, Peer, Cluster string }

// beEtcd runs an etcd until standard input ends. It commits its database only at its end, so
// until then only the log has the writes.
func beEtcd(raw string) error {
	var own etcdConfig
	if err := json.Unmarshal([]byte(raw), &own); err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Name, c.Dir = own.Name, own.Dir
	c.LogLevel, c.LogOutputs = "error", []string{"/dev/null"}
	c.BackendBatchInterval, c.BackendBatchLimit = time.Hour, 1<<20
	c.BcryptCost = uint(bcrypt.MinCost)
	client, err1 := url.Parse(own.Client)
	peer, err2 := url.Parse(own.Peer)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	c.ListenClientUrls, c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*client}, []url.URL{*peer}, []url.URL{*peer}
	c.InitialCluster = own.Cluster
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer e.Close()
	<-e.Server.ReadyNotify()
	fmt.Println(client.Host)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// spawnEtcd starts an etcd in its own process. It returns a function that stops it and one that
// waits until it is ready.
func spawnEtcd(t *testing.T, c etcdConfig) (stop func(), ready func() (endpoint string)) {
	t.Helper()
	raw := must(json.Marshal(c))(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), etcdProcess+"="+string(raw))
	cmd.Stderr = os.Stderr
	stdin := must(cmd.StdinPipe())(t)
	stdout := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { _ = stdin.Close(); _ = cmd.Wait() })
	t.Cleanup(stop)
	return stop, func() string {
		t.Helper()
		deadline := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer deadline.Stop()
		return strings.TrimSpace(must(bufio.NewReader(stdout).ReadString('\n'))(t))
	}
}

// realEtcd starts an etcd of one member in a directory.
func realEtcd(t *testing.T, dir string) (stop func(), endpoint string) {
	t.Helper()
	peer := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	stop, ready := spawnEtcd(t, etcdConfig{
		Name: "default", Dir: dir, Peer: peer, Cluster: "default=" + peer,
		// The JSON gateway of etcd dials the address exactly as it is written here.
		Client: fmt.Sprintf("http://127.0.0.1:%d", freePort(t)),
	})
	return stop, ready()
}
