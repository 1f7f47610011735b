package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/operator/cli"
	"github.com/dynast-io/dynast/shared/prove/chaos"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// chaosRun is the result of a run of "dynast chaos".
type chaosRun struct {
	code   int
	report chaos.Report
	errs   string
	temp   string // the directory for its temporary files
}

// runChaos runs "dynast chaos --json" to its end.
func runChaos(t *testing.T, args ...string) chaosRun {
	t.Helper()
	r := chaosRun{temp: t.TempDir()}
	cmd := exec.Command(binary, append([]string{"chaos", "--json"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+r.temp)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	r.code, r.errs = cmd.ProcessState.ExitCode(), errs.String()
	if err := json.Unmarshal(out.Bytes(), &r.report); err != nil {
		t.Fatalf("chaos --json: exit code %d, invalid JSON: %v\n%s%s", r.code, err, out.String(), r.errs)
	}
	return r
}

func (r chaosRun) passed(t *testing.T) {
	t.Helper()
	if r.code != 0 || !r.report.Passed() || r.report.Schema != chaos.Schema {
		t.Fatalf("the run must pass: exit code %d, verdict %q, findings %+v\n%s", r.code, r.report.Verdict, r.report.Findings, tail(r.errs, 20000))
	}
	if left, err := os.ReadDir(r.temp); err != nil || len(left) > 0 {
		t.Errorf("the run left files in the directory for temporary files: %v, %v", left, err)
	}
	answered := 0
	for _, o := range r.report.Operations {
		answered += o.OK
	}
	if answered < 100 || r.report.Watches.Events < 50 || len(r.report.Faults) == 0 || r.report.Compared == 0 {
		t.Errorf("the run did too little: %d operations, %+v, %d faults, %d comparisons", answered, r.report.Watches, len(r.report.Faults), r.report.Compared)
	}
}

// TestChaos is a short run with all faults; DYNAST_E2E_CHAOS makes it longer.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	seed, _ := seeded(t)
	duration := "12s"
	if d := os.Getenv("DYNAST_E2E_CHAOS"); d != "" {
		duration = d
	}
	page := filepath.Join(t.TempDir(), "report.html")
	r := runChaos(t, "--duration", duration, "--seed", fmt.Sprint(seed), "--html", page)
	r.passed(t)
	t.Logf("%d faults, %+v, services %+v", len(r.report.Faults), r.report.FaultStats, r.report.Services)
	if s := r.report.Services; s == nil || s.Runs == 0 || s.Lines == 0 || s.Answered == 0 {
		t.Errorf("the run had no services: %+v", s)
	}
	if raw, err := os.ReadFile(page); err != nil || !bytes.Contains(raw, []byte("<svg")) {
		t.Errorf("the HTML report has %d bytes, error %v", len(raw), err)
	}
}

// TestChaosOnASmallDisk fills a small disk, if the test can mount one.
func TestChaosOnASmallDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	seed, _ := seeded(t)
	r := runChaos(t, "--duration", "5s", "--seed", fmt.Sprint(seed), "--faults", "fill-disk=3,kill-follower")
	if slices.ContainsFunc(r.report.LeftOut, func(l string) bool { return strings.HasPrefix(l, "fill-disk: ") }) {
		t.Skipf("the run left out a fault: %q", r.report.LeftOut)
	}
	if len(r.report.LeftOut) != 1 || !strings.HasPrefix(r.report.LeftOut[0], "services: ") || r.report.Services != nil {
		t.Errorf("a run that fills the disk must leave out only the services: %q", r.report.LeftOut)
	}
	r.passed(t)
	refused := 0
	for _, o := range r.report.Operations {
		refused += o.Refused
	}
	if refused == 0 {
		t.Error("the disk was full, but no request was refused")
	}
}

// TestChaosOfARunningCluster checks that a run in a running cluster only sends signals, and
// removes its keys.
func TestChaosOfARunningCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	seed, _ := seeded(t)
	c := start(t)
	put(t, c.dial(), "mine", "1")
	r := runChaos(t, "--duration", "3s", "--seed", fmt.Sprint(seed), "--config", c.config, "--data-dir", c.dir)
	r.passed(t)
	tr := c.full()
	if len(r.report.Replicas) != len(tr.Members) {
		t.Errorf("the run did not compare all members: %+v", r.report.Replicas)
	}
	resp, err := c.dial().Get(testContext(t), "", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Key) != "mine" {
		t.Errorf("the cluster must only have the key \"mine\" after the run: %v, %v", resp, err)
	}
	code, out := c.run("chaos", "--config", c.config, "--data-dir", c.dir, "--faults", "kill-all", "--duration", "1s")
	if code != 1 || !strings.Contains(out, "kill-all: only possible in a cluster that this command started") {
		t.Errorf("chaos with kill-all in a running cluster: exit code %d, want 1\n%s", code, out)
	}
	sameProcesses(t, tr, c.full())
}

// TestASoakEndsWhenItIsInterrupted checks that an interrupted soak runs all checks and leaves
// nothing behind.
func TestASoakEndsWhenItIsInterrupted(t *testing.T) {
	temp := t.TempDir()
	cmd := exec.Command(binary, "chaos", "--soak", "--faults", "kill-follower", "--seed", "7")
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	var out bytes.Buffer
	errs, err := os.Create(filepath.Join(t.TempDir(), "progress"))
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = &out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first fault", func() bool {
		said, err := os.ReadFile(errs.Name())
		return err == nil && bytes.Contains(said, []byte("kill-follower: follower"))
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "verdict: passed") || !strings.Contains(out.String(), "seed 7") {
		t.Errorf("the interrupted run: error %v, want the verdict \"passed\" and seed 7\n%s", err, out.String())
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("the interrupted run left files: %v, %v", left, err)
	}
}

func TestChaosNamesInvalidFlags(t *testing.T) {
	c := newCluster(t)
	for want, args := range map[string][]string{
		"kill-everything": {"--faults", "kill-everything"},
		"--clients 0":     {"--clients", "0"},
		"--duration 1ms":  {"--duration", "1ms"},
		"--value-size":    {"--value-size", "2000000"},
		"--rate":          {"--rate", "-1"},
		"--services -1":   {"--services", "-1"},
		"--between 0s":    {"--between", "0s"},
		"--max-faults -1": {"--max-faults", "-1"},
	} {
		if code, out := c.run(append([]string{"chaos"}, args...)...); code != 2 || !strings.Contains(out, want) {
			t.Errorf("chaos %v: exit code %d\n%s", args, code, out)
		}
	}
}

// TestChaosFindsALoss deletes keys while the run uses them. For its clients this is a loss, and
// the exit code reports it.
func TestChaosFindsALoss(t *testing.T) {
	seed, _ := seeded(t)
	c := start(t)
	done := make(chan chaosRun, 1)
	go func() {
		done <- runChaos(t, "--duration", "2s", "--seed", fmt.Sprint(seed), "--config", c.config, "--data-dir", c.dir)
	}()
	cl := c.dial()
	prefix := fmt.Sprintf("chaos/%d/1/k/", seed)
	deleted := 0
	eventually(t, "ten keys are deleted", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if resp, err := cl.Delete(ctx, prefix, clientv3.WithPrefix()); err == nil {
			deleted += int(resp.Deleted)
		}
		return deleted >= 10
	})
	r := <-done
	checks := map[string]bool{}
	for _, f := range r.report.Findings {
		checks[f.Check] = true
	}
	if r.code != 1 || r.report.Passed() || !checks[chaos.CheckLinearizable] || !checks[chaos.CheckWatch] {
		t.Fatalf("the run must find the loss: exit code %d, findings of the checks %v", r.code, checks)
	}
	if !strings.Contains(r.errs, r.report.Kept) || !strings.Contains(r.errs, fmt.Sprint(seed)) {
		t.Errorf("the message does not name the directory and the seed:\n%s", tail(r.errs, 2000))
	}
	if found, err := filepath.Glob(filepath.Join(r.report.Kept, "counterexample-*.html")); err != nil || len(found) == 0 {
		t.Errorf("%s contains no picture of the history", r.report.Kept)
	}
}

// TestChaosFindsAnUnexplainedRestart kills a program behind the run's back, and cuts its output.
func TestChaosFindsAnUnexplainedRestart(t *testing.T) {
	seed, _ := seeded(t)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	done := make(chan error, 1)
	var report *chaos.Report
	go func() {
		var err error
		report, err = chaos.Run(context.Background(), chaos.Config{
			Operator: cli.ChaosOperator(), Binary: binary, Seed: seed, Duration: 3 * time.Second, Services: 1,
			Followers: 2, HeartbeatTimeout: time.Second, Clients: 2, Keys: 2, Rate: 500, Weights: chaos.Weights{chaos.KillFollower: 1},
			Interfere: func(dataDir string) error {
				return os.Truncate(filepath.Join(dataDir, "services", "stubborn", "1", "output.log"), 0)
			},
		})
		done <- err
	}()
	eventually(t, "a program is killed after it wrote its first lines", func() bool {
		journals, _ := filepath.Glob(filepath.Join(temp, "dynast-chaos-*", "traces", "journal"))
		locks, _ := filepath.Glob(filepath.Join(temp, "dynast-chaos-*", "data", "services", "calm", "1", "lock"))
		if len(journals) != 1 || len(locks) != 1 {
			return false
		}
		raw, err := os.ReadFile(journals[0])
		holders, failed := proc.LockHolders(locks[0])
		if err != nil || failed != nil || !bytes.Contains(raw, []byte("calm/1")) || len(holders) != 1 {
			return false
		}
		return proc.Signal(holders[0].Identity, syscall.SIGKILL) == nil
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range report.Findings {
		found[f.Check] = true
	}
	if !found[chaos.CheckInstances] || !found[chaos.CheckOutput] || report.Services.Unexplained != 1 || report.Services.LinesWrong == 0 {
		t.Fatalf("findings: %+v; services: %+v", report.Findings, *report.Services)
	}
	for _, name := range []string{"journal", "actions"} {
		if _, err := os.Stat(filepath.Join(report.Kept, "traces", name)); err != nil {
			t.Errorf("the run did not keep a file: %v", err)
		}
	}
}

// TestChaosFindsAWrongReplica changes one bit of one value in one slot.
func TestChaosFindsAWrongReplica(t *testing.T) {
	seed, _ := seeded(t)
	t.Setenv("TMPDIR", t.TempDir())
	wrong := 0
	report, err := chaos.Run(context.Background(), chaos.Config{
		Operator: cli.ChaosOperator(), Binary: binary, Seed: seed, Duration: time.Second,
		Followers: 2, HeartbeatTimeout: time.Second, Clients: 2, Keys: 2, Rate: 500, Weights: chaos.Weights{chaos.KillFollower: 1},
		Interfere: func(dataDir string) error {
			dir, err := datadir.OpenForReading(dataDir)
			if err != nil {
				return err
			}
			s, err := dir.ReadSuccession()
			if err != nil {
				return err
			}
			wrong = s.Slot%3 + 1 // a slot other than the leader's
			if err := settle(dir.Slot(wrong)); err != nil {
				return err
			}
			return flipOneValue(database(dir.Slot(wrong)))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Passed() || len(report.Findings) != 1 || report.Findings[0].Check != chaos.CheckReplicas {
		t.Fatalf("findings: %+v", report.Findings)
	}
	odd := slices.DeleteFunc(slices.Clone(report.Replicas), func(r chaos.Replica) bool { return r.Slot == wrong })
	if len(odd) != 2 || odd[0].Hash != odd[1].Hash {
		t.Errorf("the report does not show that slot %d differs: %+v", wrong, report.Replicas)
	}
	for _, name := range []string{"data", "log"} {
		if _, err := os.Stat(filepath.Join(report.Kept, name)); err != nil {
			t.Errorf("the run did not keep a file: %v", err)
		}
	}
}

// settle applies the entries of a slot's log to its database. Otherwise the last value there may
// be one that no hash covers any more.
func settle(slot datadir.Slot) error {
	s, err := store.Open(store.Config{Dir: slot.DBDir()})
	if err != nil {
		return err
	}
	entries, _, err := replog.Read(slot.LogDir(), s.Applied(), replog.Options{Dir: slot.LogDir()})
	for _, e := range entries {
		if err == nil {
			_, err = s.Apply(e)
		}
	}
	return errors.Join(err, s.Close())
}

// flipOneValue changes a value in a database that no process has open.
func flipOneValue(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("key"))
		k, v := b.Cursor().Last()
		changed := bytes.Clone(v)
		changed[len(changed)-1] ^= 1
		return b.Put(bytes.Clone(k), changed)
	})
}
