package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/logview"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/services"
)

const (
	// pollEnd is how often "run --tail" looks whether the service has ended.
	pollEnd = 200 * time.Millisecond
	// exitSignal is added to the number of a signal to make an exit code, as in a shell.
	exitSignal core.ExitCode = 128
	// exitInterrupt is the exit code after Ctrl-C, as in a shell.
	exitInterrupt = exitSignal + core.ExitCode(unix.SIGINT)
)

// runAndFollow adds a service and prints its output until it has ended. The error has the exit code
// of the program. If ctx ends first, the service runs on, or is removed if it would be removed at
// its end.
func runAndFollow(ctx context.Context, dataDir string, req *wire.ActRequest, name string, out, notes io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	before, err := readServices(ctx, dir)
	if err != nil {
		return err
	}
	// A service of this name may have been here before. Its output is skipped.
	v := logview.New(logview.Query{Services: dir.Services(), Names: []string{name}})
	defer v.Close()
	p := &logPrinter{out: out, notes: notes, o: LogsOptions{Style: term.StyleOf(os.Stdout), Terminal: term.IsTerminal(os.Stdout)}}
	if err := v.Show(ctx, p.print); err != nil {
		return err
	}
	ids, err := sendAct(ctx, dir, req)
	if err != nil {
		return err
	}
	p.o.Raw = len(ids) == 1
	for _, id := range ids {
		p.style(id)
	}
	ended, result := make(chan struct{}), error(nil)
	watching, cancel := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		result = awaitEnd(watching, dir, before.At, ids)
	}()
	err = v.FollowUntil(ctx, ended, p.print)
	cancel() // the output cannot be printed any more
	<-ended
	switch {
	case ctx.Err() == nil && err != nil:
		return err
	case ctx.Err() == nil:
		return result
	case !req.RemoveWhenDone:
		fmt.Fprintf(notes, "%s runs on; 'dynast logs --follow %[1]s' shows its output, and 'dynast stop --remove %[1]s' ends it\n", name)
		return &Error{Code: exitInterrupt}
	}
	return interrupted(context.WithoutCancel(ctx), dir, name, ids)
}

// interrupted removes a service because the user has interrupted the command that started it.
func interrupted(ctx context.Context, dir *datadir.Dir, name string, ids []string) error {
	err := Act(ctx, dir.Path(), &wire.ActRequest{Action: string(member.ActionRemove), Names: []string{name}},
		waiting{action: member.ActionRemove, timeout: 30 * time.Second}, io.Discard)
	if err == nil {
		return &Error{Code: exitInterrupt}
	}
	if r, readErr := readServices(ctx, dir); readErr == nil && len(existing(r, ids)) == 0 { // it has ended by itself
		return &Error{Code: exitInterrupt}
	}
	return &Error{Code: exitInterrupt, Err: fmt.Errorf("run: %s was not removed: %w", name, err)}
}

// awaitEnd waits until instances that were started after a time have ended. It returns nil if all
// succeeded, and otherwise an error about the first that did not, with its exit code.
func awaitEnd(ctx context.Context, dir *datadir.Dir, after time.Time, ids []string) error {
	for {
		r, err := readServices(ctx, dir)
		switch {
		case err == nil:
			if ended, err := endOf(r, after, ids); ended {
				return err
			}
		case !errors.Is(err, ErrUnreachable) || deserted(dir):
			return err
		}
		select {
		case <-time.After(pollEnd):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endOf reports whether all instances have ended, and with which result.
func endOf(r *ps.Report, after time.Time, ids []string) (ended bool, err error) {
	for _, id := range ids {
		i, ok := instance(r, id)
		e := ps.Ended{ID: id, State: i.State, Reason: i.Reason, LastExit: i.LastExit}
		if !ok {
			e.Reason = "it was removed"
			for _, removed := range r.Ended {
				if removed.ID == id && !removed.At.Before(after) {
					e = removed
					break
				}
			}
		}
		switch state := services.State(e.State); {
		case ok && state != services.StateDone && state != services.StateFailed && state != services.StateStopped:
			return false, nil
		case state == services.StateStopped:
			e.Reason = "it was stopped"
		case state == services.StateDone:
			continue
		}
		if err == nil {
			err = exitError(e)
		}
	}
	return true, err
}

// exitError returns an error with the exit code of an instance that did not succeed.
func exitError(e ps.Ended) error {
	failed := services.State(e.State) == services.StateFailed
	switch x := e.LastExit; {
	case failed && x != nil && x.Code > 0:
		return &Error{Code: core.ExitCode(x.Code)}
	case failed && x != nil && x.Signal != "":
		return &Error{Code: exitSignal + core.ExitCode(unix.SignalNum(x.Signal)), Err: fmt.Errorf("run: %s: %s", e.ID, x.Reason)}
	}
	return &Error{Code: core.ExitError, Err: fmt.Errorf("run: %s: %s", e.ID, e.Reason)}
}
