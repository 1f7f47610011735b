package e2e

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dockerfile returns the arguments of the last instruction of each kind.
func dockerfile(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("../../../scripts/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for line := range strings.Lines(strings.ReplaceAll(string(raw), "\\\n", " ")) {
		if name, args, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == strings.ToUpper(name) && name != "#" {
			found[name] = args
		}
	}
	return found
}

// TestImage runs the result of the Dockerfile without Docker. The static program is the first
// process of a PID namespace and runs the image's own command as the image's user. Its root
// directory has nothing but the program, /proc and the data directory.
func TestImage(t *testing.T) {
	if os.Getenv("DYNAST_E2E_STATIC") == "" {
		t.Skip("this test builds everything without cgo, which takes minutes: set DYNAST_E2E_STATIC=1 to run it")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to change the root directory and the user")
	}
	in := dockerfile(t)
	root := filepath.Join(t.TempDir(), "root")
	data := filepath.Join(root, "data")
	c := newCluster(t, withDataDir(data))
	for _, d := range []string{root, data, filepath.Join(root, "proc"), filepath.Join(root, "dev")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mknod(filepath.Join(root, "dev/null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Skipf("needs permission to create a device: %v", err)
	}
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(root, "dynast"), "github.com/dynast-io/dynast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	noInterpreter(t, filepath.Join(root, "dynast"))
	var uid, gid int
	if _, err := fmt.Sscanf(in["USER"], "%d:%d", &uid, &gid); err != nil || uid == 0 {
		t.Fatalf("USER %s: want a numeric uid and gid other than root's: %v", in["USER"], err)
	}
	if err := os.Chown(data, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(data, 0o700); err != nil {
		t.Fatal(err)
	}
	var command []string
	for _, name := range []string{"ENTRYPOINT", "CMD"} {
		var part []string
		if err := json.Unmarshal([]byte(in[name]), &part); err != nil {
			t.Fatalf("%s %s: %v", name, in[name], err)
		}
		command = append(command, part...)
	}
	// Use the ports of this test. The last one of two equal flags wins.
	command = append(command, "--client-listen", c.client, "--member-ports", fmt.Sprintf("%d-%d", c.first, c.first+39))
	k := contain(t, c, []string{"--mount-proc", "--root=" + root, fmt.Sprintf("--setuid=%d", uid), fmt.Sprintf("--setgid=%d", gid)}, command...)
	before := k.settled("")
	cl := c.dial()
	put(t, cl, "image", "x")
	if err := syscall.Kill(k.outside(leaderOf(before).PID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	k.settled(before.Leader)
	put(t, cl, "image", "y")
	if err := syscall.Kill(k.first(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := k.ended(); code != 0 {
		t.Errorf("the container was stopped in order: exit code %d, want 0", code)
	}
}

func noInterpreter(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program needs a dynamic linker, which an empty image does not have")
		}
	}
}
