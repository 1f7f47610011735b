package openfiles

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/rules/plural"
)

// How many descriptors a member needs for itself was measured on Linux with strace(1) on all
// members, and by reading /proc/PID/fd of them all again and again. Meanwhile the cluster was
// started, the leader was killed twice, all followers were killed and their copies removed (so
// that all were started and sent snapshots at the same time), the leader and all followers but
// the heir were killed together, and the cluster was upgraded, when there are twice as many
// followers. The kernel gives the lowest free number to each new descriptor and the limit
// bounds that number, so the highest number that was ever seen, plus one, is the need.
//
//	followers                   1    2    4
//	leader at rest             37   44   56
//	takeovers, snapshots       40   46   61
//	upgrade                    45   58   82
//
// That is less than 36 + 12 for each follower. The constants add a reserve: for log files,
// backups, metrics and commands that read /proc, and for the connection that each listener
// has accepted but not judged yet.
const (
	memberFiles   = 40
	followerFiles = 16
)

// The minimum share of each listener. The shares are part of what a member needs.
const (
	leastClients   = 16
	leastStrangers = 12
	leastCommands  = 8
	leastOthers    = 2
	leastBrowsers  = 6
	leastHandoffs  = 4
	leastShares    = leastClients + leastStrangers + leastCommands + leastOthers + leastBrowsers + leastHandoffs
)

// unlimited stands for every limit above it. It is more than Linux allows (fs.nr_open).
const unlimited = 1 << 30

// Needed is the lowest limit with which a member of a cluster with so many followers works: 88,
// and 16 for each follower.
func Needed(followers int) int {
	return memberFiles + leastShares + followerFiles*followers
}

// Raise sets the soft limit of this process to its hard limit and returns it. Go's runtime does
// nearly the same by itself, but it stops one below the hard limit, and gives child processes
// the original soft limit. After Raise, child processes inherit the raised limit. If the limit
// cannot be raised, Raise returns the present one.
func Raise() (limit int, err error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	if l.Cur < l.Max {
		raised := unix.Rlimit{Cur: l.Max, Max: l.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err == nil {
			l = raised
		}
	}
	return int(min(l.Cur, unlimited)), nil
}

// What a leader needs for the programs of services, counted with /proc/self/fd: for each running
// instance a pidfd and three files of its output, for each instance with a check those of one attempt, and
// for each socket of a service one, which followers have open too. The constant reserve is for the
// sockets by which programs are watched, and for starts, of which four go on at the same time.
const (
	servicesFiles = 32
	instanceFiles = 4
	checkFiles    = 4
)

// Services is how many instances all services have, how many of them have checks that open
// something, and how many sockets the services have.
type Services struct{ Instances, Checked, Sockets int }

// Needed is how many descriptors a member needs for services, in addition to those for members.
func (s Services) Needed() int {
	if s.Instances == 0 {
		return 0
	}
	return servicesFiles + instanceFiles*s.Instances + checkFiles*s.Checked + s.Sockets
}

// TooFew means that a limit is below what a member needs.
type TooFew struct {
	Limit, Followers int
	Services         Services
}

func (e *TooFew) Error() string {
	services := ""
	if e.Services.Instances > 0 {
		services = fmt.Sprintf(", and %d for %s of services", e.Services.Needed(), plural.Count(e.Services.Instances, "instance"))
	}
	return fmt.Sprintf("too few open files: the limit is %d, and a cluster with %s needs %d (%d, and %d for each follower%s): "+
		"raise the hard limit with 'ulimit -n' in the shell, LimitNOFILE= in the systemd unit, or --ulimit nofile= for the container",
		e.Limit, plural.Count(e.Followers, "follower"), Needed(e.Followers)+e.Services.Needed(), Needed(0), followerFiles, services)
}

// Check returns a *TooFew if the limit is below what the members and the services need.
func Check(limit, followers int, s Services) error {
	if limit < Needed(followers)+s.Needed() {
		return &TooFew{Limit: limit, Followers: followers, Services: s}
	}
	return nil
}

// Shares says how many connections each listener may have open.
type Shares struct {
	// Clients are the connections of clients. They get everything that the others leave.
	Clients int
	// Strangers are connections to the member address that are not proven yet.
	Strangers int
	// Commands and Others are connections to admin.sock: of the owner and root, and of other users.
	Commands, Others int
	// Browsers are connections to the page for operators.
	Browsers int
	// Handoffs are connections of processes that want to join.
	Handoffs int
}

// Split divides a limit in a cluster with so many followers. No listener gets more than most
// says, except that Clients is not bounded. All shares except Clients are the same for any
// number of followers up to mostFollowers, so that they hold for the life of a process.
func Split(limit, followers, mostFollowers int, most Shares) Shares {
	extra := max(limit-Needed(mostFollowers), 0)
	s := Shares{
		Strangers: min(most.Strangers, leastStrangers+extra/8),
		Commands:  min(most.Commands, leastCommands+extra/16),
		Others:    min(most.Others, leastOthers+extra/64),
		Browsers:  min(most.Browsers, leastBrowsers+extra/16),
		Handoffs:  min(most.Handoffs, leastHandoffs+extra/64),
	}
	taken := memberFiles + followerFiles*followers + s.Strangers + s.Commands + s.Others + s.Browsers + s.Handoffs
	s.Clients = max(limit-taken, leastClients)
	return s
}
