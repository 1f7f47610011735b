package proc

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// timerSlack is how late the kernel may wake a sleeping thread. Go's monitor thread keeps
	// asking for sleeps of 20 us while anything runs. With the kernel's default slack of 50 us
	// that used a tenth of the processor time of a member under load.
	timerSlack        = time.Millisecond
	defaultTimerSlack = 50 * time.Microsecond
	// slackEnv keeps a process from trying again if its slack did not survive execve.
	slackEnv = "DYNAST_TIMER_SLACK"
)

// SlackTimers gives all threads of this process, and the processes that it starts, a timer
// slack of a millisecond: their sleeps may last up to that much longer. A thread inherits
// the slack of the thread that made it, and Go's monitor thread is older than main. So the
// program executes itself once more, as the same process with the same arguments,
// environment and inherited files. Call this before anything is opened.
//
// SlackTimers keeps a slack that somebody else has set. It also changes nothing if the
// kernel does not allow it.
func SlackTimers() {
	tried := os.Getenv(slackEnv) != ""
	_ = os.Unsetenv(slackEnv)
	runtime.LockOSThread() // execve keeps the slack of the thread that calls it
	defer runtime.UnlockOSThread()
	if tried || slack() != defaultTimerSlack {
		return
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err == nil {
		_ = unix.Exec(Executable(), os.Args, append(os.Environ(), slackEnv+"=1"))
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(defaultTimerSlack), 0, 0, 0)
	}
}

// slack returns the calling thread's timer slack, or 0 if the kernel does not tell.
func slack() time.Duration {
	n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0
	}
	return time.Duration(n)
}
