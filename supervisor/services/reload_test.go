package services

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// While an env_file cannot be read, because its file system hangs, a reload waits for it. The
// services are supervised meanwhile.
func TestReloadDoesNotStopSupervision(t *testing.T) {
	dir := t.TempDir()
	env, seen := filepath.Join(dir, "env"), filepath.Join(dir, "seen")
	if err := os.WriteFile(env, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, fmt.Sprintf(`service "p" {
  command  = ["sleep", "600"]
  env_file = %q
  reload {
    exec = ["/bin/sh", "-c", "echo $COLOR > %s.new; mv %s.new %s"]
  }
}`, env, seen, seen, seen))
	r.lead()
	r.await("p/1", 0)
	if err := os.Remove(env); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(env, 0o600); err != nil { // opening it waits for a writer
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := r.now.Act(ctx, member.ServiceCommand{Action: member.ActionReload, Names: []string{"p"}})
		if err == nil {
			_, err = r.now.Report(ctx)
		}
		answered <- err
	}()
	var err error
	select {
	case err = <-answered:
	case <-time.After(20 * time.Second):
		t.Error("a reload that cannot read the env_file stops the supervision of all services")
	}
	if err != nil {
		t.Error(err)
	}
	w, err := os.OpenFile(env, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("COLOR=red\n"); err != nil {
		t.Error(err)
	}
	w.Close()
	testkit.Eventually(t, "the reload command has run", func() bool {
		raw, err := os.ReadFile(seen)
		return err == nil && strings.TrimSpace(string(raw)) == "red"
	})
}
