package store

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// TestKilledWriter kills a process again and again while it applies entries. Each time the file
// must be intact, and hold exactly the result of the entries up to its own index. Then the next
// process continues from there.
func TestKilledWriter(t *testing.T) {
	if dir := os.Getenv("STORE_TEST_CHILD"); dir != "" {
		applyForEver(t, dir)
	}
	dir := t.TempDir()
	for round := range 5 {
		killAfter(t, dir, 1+round*7)
		if err := verify(Path(dir), time.Second); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir)
		n := s.Applied().Index
		want := map[string]string{}
		for i := uint64(1); i <= n; i++ {
			scenario(t, i, want)
		}
		got := map[string]string{}
		all, err := s.KV().Range(t.Context(), []byte{0}, []byte{}, mvcc.RangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range all.KVs {
			got[string(kv.Key)] = string(kv.Value)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("round %d: after %d entries: %d keys, want %d", round, n, len(got), len(want))
		}
		t.Logf("round %d: killed at entry %d", round, n)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter starts the writer and kills it after a number of progress reports.
func killAfter(t *testing.T, dir string, reports int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$")
	cmd.Env = append(os.Environ(), "STORE_TEST_CHILD="+dir, "ETCD_VERIFY=none")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range reports {
		if !lines.Scan() {
			t.Error("the writer ended by itself")
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func applyForEver(t *testing.T, dir string) {
	s, err := Open(Config{Dir: dir, CommitInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for {
		i := s.Applied().Index + 1
		if _, err := s.Apply(entry.Entry{Index: i, Epoch: 1, Data: scenario(t, i, nil)}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if i%97 == 0 {
			fmt.Println(i)
		}
	}
}

// scenario returns entry i and its effect on the keys.
func scenario(t *testing.T, i uint64, keys map[string]string) []byte {
	key := fmt.Sprint("key", i*7919%211)
	switch {
	case i%50 == 0:
		return data(t, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: int64(i / 2)}})
	case i%5 == 0:
		delete(keys, key)
		return data(t, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}})
	case i%33 == 0:
		return nil
	}
	value := fmt.Sprintf("%0*d", i%200+1, i)
	if keys != nil {
		keys[key] = value
	}
	return put(t, key, value)
}
