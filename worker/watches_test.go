package worker

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
)

// A process that is to be killed may have died a moment before, with the news
// of that in the mailbox: that is no reason to end oneself.
func TestKillOfAProcessThatJustDied(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	self, err := proc.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	m := &Member{mail: newMailbox(), ended: make(chan struct{}), logger: hclog.NewNullLogger()}
	w := newWatches(m)
	id := roster.ID{PID: self.PID, StartTime: self.StartTime}
	w.watch(id)
	w.kill(id)
	if err := cmd.Wait(); err == nil {
		t.Error("it was not killed")
	}
	deadline := time.Now().Add(30 * time.Second)
	for !errors.Is(w.open[id].process.Kill(), os.ErrClosed) {
		if time.Now().After(deadline) {
			t.Fatal("its pidfd is open")
		}
		<-time.After(time.Millisecond) // the pace of asking
	}
	w.kill(id)
	select {
	case <-m.ended:
		t.Error("the killer ends")
	default:
	}
	w.unwatch(id)
}
