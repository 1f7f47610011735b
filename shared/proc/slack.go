package proc

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// timerSlack is how late the kernel may wake a thread that sleeps. Go's monitor
	// thread asks for 20 us again and again while anything runs; with the kernel's
	// 50 us of slack it was a tenth of what a member under load used.
	timerSlack        = time.Millisecond
	defaultTimerSlack = 50 * time.Microsecond
	// slackEnv keeps a process whose slack did not outlive execve from trying again.
	slackEnv = "DYNAST_TIMER_SLACK"
)

// SlackTimers gives all threads of this process, and the processes that it
// starts, a timer slack of a millisecond: they sleep up to that much longer than they ask for.
// A thread has it from the one that made it, and Go's monitor thread is older than
// main: so the program is executed once more, as the same process with the same arguments,
// environment and inherited files. To be called before anything is opened.
//
// A slack that somebody else chose stays, and so it does where the kernel does not
// allow another.
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

// slack is the calling thread's; 0 if the kernel does not say.
func slack() time.Duration {
	n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0
	}
	return time.Duration(n)
}
