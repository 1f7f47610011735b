package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// example is a copy of one of the examples, which runs the commands of its README.
type example struct {
	*cluster
	name string
	root string   // stands for the root of the repository
	todo []string // the commands of the README that were not run yet
	// replace has what is different in this copy: the text of the README or a file, and its
	// replacement.
	replace *strings.Replacer
}

// newExample copies an example. The data directory is the default one in a fresh directory. Pairs
// of texts in replace adapt its ports.
func newExample(t *testing.T, name string, replace ...string) *example {
	t.Helper()
	for _, tool := range []string{"sh", "cut", "head", "date"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the examples need the program %s: %v", tool, err)
		}
	}
	root := t.TempDir()
	e := &example{
		name: name, root: root, replace: strings.NewReplacer(replace...),
		cluster: newCluster(t, withDataDir(filepath.Join(root, "dynast-data")), withServices(t, "")),
	}
	to := filepath.Join(root, "examples", name)
	if err := os.CopyFS(to, os.DirFS("../../../examples/"+name)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(root, "dynast")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(to, "config.hcl")); err == nil {
		e.adapt("config.hcl")
	}
	_, block, found := strings.Cut(page(t, "examples/"+name+"/README.md"), "```sh\n")
	block, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatalf("the README of the example %s has no block of commands", name)
	}
	for line := range strings.Lines(block) {
		e.todo = append(e.todo, strings.TrimSpace(regexp.MustCompile(`\s+# .*`).ReplaceAllString(line, "")))
	}
	t.Cleanup(func() {
		if t.Failed() {
			raw, err := os.ReadFile(filepath.Join(root, "dynast.log"))
			t.Logf("dynast.log (%v):\n%s", err, tail(string(raw), 20000))
		}
	})
	return e
}

// adapt gives a configuration file of the example its own ports.
func (e *example) adapt(file string) {
	e.t.Helper()
	path := filepath.Join(e.root, "examples", e.name, file)
	raw, err := os.ReadFile(path)
	if err != nil {
		e.t.Fatal(err)
	}
	text := e.replace.Replace(string(raw)) + fmt.Sprintf(`
client { listen = %q }
dashboard { listen = "off" }
member { ports = "%d-%d" }
`, e.client, e.first, e.first+39)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// take returns the next command of the README, which has to begin with want.
func (e *example) take(want string) string {
	e.t.Helper()
	if len(e.todo) == 0 || !strings.HasPrefix(e.todo[0], want) {
		e.t.Fatalf("the next commands in the README are %q, want %q first", e.todo, want)
	}
	line := e.todo[0]
	e.todo = e.todo[1:]
	return e.replace.Replace(line)
}

// sh makes a command of the shell in the root.
func (e *example) sh(line string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = e.root
	return cmd
}

// shows runs a line until it succeeds and its output matches all patterns. Operators repeat what
// they look at as well.
func (e *example) shows(line string, patterns ...string) string {
	e.t.Helper()
	var out []byte
	eventually(e.t, fmt.Sprintf("%s shows %q", line, patterns), func() bool {
		var err error
		out, err = e.sh(line).Output()
		return err == nil && !slices.ContainsFunc(patterns, func(p string) bool { return !regexp.MustCompile(p).Match(out) })
	})
	return string(out)
}

// does runs a line that must succeed.
func (e *example) does(line string) string {
	e.t.Helper()
	out, err := e.sh(line).CombinedOutput()
	if err != nil {
		e.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// starts runs the command of the README that starts dynast.
func (e *example) starts() {
	e.t.Helper()
	line, background := strings.CutSuffix(e.take("./dynast up "), " &")
	if !background {
		e.t.Fatalf("the README does not start dynast in the background: %s", line)
	}
	e.launch(e.sh("exec " + line))
	e.full()
}

// stops runs the last command of the README, and checks that no process is left.
func (e *example) stops() {
	e.t.Helper()
	programs := map[string]proc.Identity{}
	r, err := e.services()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, s := range r.Services {
		for _, i := range s.Instances {
			if id, err := proc.Identify(i.PID); err == nil && i.PID != 0 {
				programs[i.ID] = id
			}
		}
	}
	members := e.tree()
	e.does(e.take("./dynast stop"))
	if len(e.todo) > 0 {
		e.t.Errorf("the README has more commands after the stop: %q", e.todo)
	}
	e.awaitGone(members)
	for id, program := range programs {
		if now, err := proc.Identify(program.PID); err == nil && now == program {
			e.t.Errorf("%s is left after the stop: pid %d", id, program.PID)
		}
	}
	for _, s := range r.Services {
		for _, i := range s.Instances {
			if left := e.processesOf(i.ID); len(left) > 0 {
				e.t.Errorf("processes of %s are left after the stop: %v", i.ID, left)
			}
		}
	}
}

// TestExampleWeb: both instances answer on one socket, and it refuses no connection during a
// rolling restart. The death of the leader does not touch them.
func TestExampleWeb(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("the example needs curl: %v", err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	e := newExample(t, "web", "127.0.0.1:8080", address)
	build := e.take("go build -o dynast . && go build -o examples/web/web ./examples/web")
	_, build, _ = strings.Cut(build, " && ") // the binary of dynast is there
	compile := exec.Command("sh", "-c", strings.Replace(build, "-o ", "-o "+e.root+"/", 1))
	compile.Dir = "../../.."
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	e.starts()
	e.shows(e.take("./dynast ps"), `web/1 +ready`, `web/2 +ready`)
	curl := e.take("curl ")
	e.shows(curl, `^instance [12], pid \d+\n$`)
	answered := map[string]bool{}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	// get notes which instance answers. Nothing may refuse the connection.
	get := func() error {
		resp, err := client.Get("http://" + address + "/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var n, pid int
		if _, err := fmt.Fscanf(resp.Body, "instance %d, pid %d", &n, &pid); err != nil {
			return err
		}
		answered[strconv.Itoa(n)] = true
		return nil
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := get(); err != nil {
				done <- err
				return
			}
		}
	}()
	e.does(e.take("./dynast restart --rolling web"))
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("a request during the rolling restart: %v", err)
	}
	eventually(t, "both instances answer", func() bool {
		if err := get(); err != nil {
			t.Fatal(err)
		}
		return answered["1"] && answered["2"]
	})
	before := []int{e.instance("web/1").PID, e.instance("web/2").PID}
	old := e.full()
	e.does(e.take("kill -9 "))
	e.wait("another leader", func(now *tree.Tree) bool { return now.Leader != old.Leader && now.Epoch > old.Epoch })
	e.shows(e.take("./dynast ps"), fmt.Sprintf(`web/1 +ready +%d `, before[0]), fmt.Sprintf(`web/2 +ready +%d `, before[1]))
	e.shows(e.take("./dynast logs web"), `web/1 .*ready: instance 1`, `web/2 .*ready: instance 2`, `GET /`)
	e.stops()
}

// TestExampleWorker: one instance has the lock and works. When it is killed, the other one works.
func TestExampleWorker(t *testing.T) {
	e := newExample(t, "worker")
	e.take("go build -o dynast .")
	e.starts()
	last := e.take("./dynast get jobs/last")
	holder := regexp.MustCompile(`job \d+ of instance ([12])\n`).FindStringSubmatch(e.shows(last, `^jobs/last\njob \d+ of instance [12]\n$`))[1]
	other := map[string]string{"1": "2", "2": "1"}[holder]
	e.shows("./dynast get --prefix --keys-only worker/", `(?s)worker/[0-9a-f]+\n.*worker/[0-9a-f]+\n`) // both asked for the lock
	if logs := e.does("./dynast logs worker"); strings.Count(logs, "has the lock and works") != 1 {
		t.Errorf("not exactly one worker has the lock:\n%s", logs)
	}
	kill := e.take("./dynast kill worker/")
	e.does(strings.TrimRight(kill, "12") + holder)
	e.shows(e.take("./dynast get jobs/last"), `of instance `+other)
	logs := e.shows(e.take("./dynast logs worker"), `worker/`+other+` .*instance `+other+` has the lock and works`)
	if n := strings.Count(logs, "has the lock and works"); n != 2 {
		t.Errorf("the workers got the lock %d times, want 2:\n%s", n, logs)
	}
	e.stops()
}

// TestExampleCron: the task waits for its time, and runs when an operator starts it.
func TestExampleCron(t *testing.T) {
	e := newExample(t, "cron")
	e.take("go build -o dynast .")
	e.starts()
	e.shows(e.take("./dynast ps"), `report/1 +\w+ .*next run`)
	e.does(e.take("./dynast start report"))
	e.shows(e.take("./dynast logs report"), `report at \d\d:\d\d:\d\d\n`)
	e.stops()
}

// TestExampleProcfile: an imported Procfile runs, the other programs after its release.
func TestExampleProcfile(t *testing.T) {
	e := newExample(t, "procfile")
	e.take("go build -o dynast .")
	e.does(e.take("./dynast import examples/procfile/Procfile >examples/procfile/services.hcl"))
	e.adapt("services.hcl")
	e.starts()
	e.shows(e.take("./dynast ps"), `release/1 +done`, `web/1 +ready`, `clock/1 +ready`)
	e.shows(e.take("./dynast logs clock"), `clock/1 .*\d\d:\d\d:\d\d`)
	e.shows("./dynast logs release web", `release/1 .*database migrated\n`, `web/1 .*web listens on 8080\n`)
	e.stops()
}
