package e2e

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const repository = "../../.."

// releaseConfig is the part of .goreleaser.yaml that the tests use.
type releaseConfig struct {
	Before   struct{ Hooks []string }
	Archives []struct{ Files []struct{ Src string } }
	NFPMs    []map[string]any
	Checksum struct {
		ExtraFiles []struct{ Glob string } `json:"extra_files"`
	}
}

func release(t *testing.T) *releaseConfig {
	t.Helper()
	var c releaseConfig
	if err := yaml.Unmarshal([]byte(page(t, ".goreleaser.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.NFPMs) != 1 || len(c.Archives) != 1 {
		t.Fatalf(".goreleaser.yaml describes %d packages and %d archives, and the tests know only of one each", len(c.NFPMs), len(c.Archives))
	}
	return &c
}

// deb builds the .deb package that .goreleaser.yaml describes, with the program under test in it.
// generated is the directory with the results of scripts/package/files.sh.
func deb(t *testing.T, nfpm, generated, version, target string) {
	t.Helper()
	p := maps.Clone(release(t).NFPMs[0])
	p["name"], p["arch"], p["version"] = p["package_name"], runtime.GOARCH, version
	contents := []any{map[string]any{"src": binary, "dst": fmt.Sprint(p["bindir"]) + "/dynast"}}
	for _, entry := range p["contents"].([]any) {
		e := maps.Clone(entry.(map[string]any))
		if src, ok := e["src"].(string); ok {
			e["src"] = strings.Replace(src, "build/package/", generated+"/", 1)
		}
		contents = append(contents, e)
	}
	p["contents"] = contents
	// These are goreleaser's own, have its templates, or are for other packages.
	for _, key := range []string{"id", "package_name", "file_name_template", "formats", "bindir", "mtime", "overrides"} {
		delete(p, key)
	}
	raw, err := yaml.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "nfpm.yaml")
	if err := os.WriteFile(config, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nfpm, "package", "--config", config, "--packager", "deb", "--target", target)
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nfpm: %v\n%s", err, out)
	}
}

// disposable makes a copy of this host's file system that is thrown away, and runs the script
// /shared/script in it. Its processes end with it.
const disposable = `
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
mount -t tmpfs tmpfs "$1/root/tmp"
mkdir -p "$1/root/shared"
mount --bind "$2" "$1/root/shared"
cd /
exec chroot "$1/root" sh -eux /shared/script
`

// inDisposable runs a shell script as root in a copy of this host's file system.
func inDisposable(t *testing.T, shared, script string) (string, error) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(shared, "script"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-eu", "-c", disposable, "sh", t.TempDir(), shared)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestPackage installs the .deb package, runs the installed program with the installed
// configuration, upgrades the package while it runs, and removes it.
func TestPackage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds packages")
	}
	nfpm := os.Getenv("DYNAST_NFPM")
	if nfpm == "" {
		t.Skip("needs nfpm: set DYNAST_NFPM to the program, see .ci/run")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to install a package")
	}
	shared := t.TempDir()
	if out, err := inDisposable(t, shared, "dpkg --version && command -v runuser useradd getent"); err != nil {
		t.Skipf("needs dpkg, runuser, useradd, and an overlay file system to install into: %v\n%s", err, out)
	}
	generated := filepath.Join(t.TempDir(), "files")
	t.Setenv("DYNAST", binary)
	if code, out := script(t, "package/files.sh", generated, "v1.0.0"); code != 0 {
		t.Fatalf("files.sh: exit code %d\n%s", code, out)
	}
	for _, version := range []string{"1.0.0", "1.0.1"} {
		deb(t, nfpm, generated, version, filepath.Join(shared, version+".deb"))
	}
	list, err := exec.Command("dpkg-deb", "-c", filepath.Join(shared, "1.0.0.deb")).CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg-deb -c: %v\n%s", err, list)
	}
	for _, want := range []string{
		"/usr/bin/dynast", "/etc/dynast/config.hcl", "/usr/lib/systemd/system/dynast.service", "/usr/lib/systemd/system/dynast.socket",
		"/usr/share/man/man1/dynast-up.1.gz", "/usr/share/man/man5/dynast-config.5.gz", "/usr/share/bash-completion/completions/dynast", "/usr/share/zsh/vendor-completions/_dynast",
		"/usr/share/fish/vendor_completions.d/dynast.fish", "/usr/share/doc/dynast/copyright", "/usr/share/doc/dynast/docs/operations.md",
	} {
		if !strings.Contains(string(list), " ."+want+"\n") {
			t.Errorf("the package does not contain %s", want)
		}
	}
	c := newCluster(t) // only for its addresses
	settings := fmt.Sprintf(`
followers = 1
client { listen = %q }
member { ports = "%d-%d" }
dashboard { listen = "off" }
`, c.client, c.first, c.first+39)
	out, err := inDisposable(t, shared, `
dpkg -i /shared/1.0.0.deb
test "$(stat -c '%U:%G %a' /var/lib/dynast)" = "dynast:dynast 700"
test "$(stat -c '%U:%G %a' /etc/dynast/config.hcl)" = "root:dynast 640"
grep -qx 'ExecStart=/usr/bin/dynast up --config /etc/dynast/config.hcl' /usr/lib/systemd/system/dynast.service
dynast check --config /etc/dynast/config.hcl
cat >>/etc/dynast/config.hcl <<'END'`+settings+`END
runuser -u dynast -- dynast up --config /etc/dynast/config.hcl --ready-file /tmp/ready &
until test -e /tmp/ready; do kill -0 $!; sleep 0.1; done
dynast put --config /etc/dynast/config.hcl package works
dpkg -i /shared/1.0.1.deb >/tmp/upgraded
grep -q 'dynast upgrade --data-dir /var/lib/dynast' /tmp/upgraded
grep -qx 'followers = 1' /etc/dynast/config.hcl
dynast upgrade --data-dir /var/lib/dynast
dynast get --config /etc/dynast/config.hcl package | grep -qx works
dpkg -r dynast
test ! -e /usr/bin/dynast
if grep -l ^dynast /proc/[0-9]*/comm; then echo "processes are left"; exit 1; fi
test -e /etc/dynast/config.hcl
dpkg -P dynast
test ! -e /etc/dynast
test -e /var/lib/dynast/cluster.json -o -e /var/lib/dynast/cluster.lock
`)
	if err != nil {
		t.Errorf("the last command of this script failed: %v\n%s", err, tail(out, 10000))
	}
}

// fakeRelease serves an archive as a release has it, with a shell script as the program.
func fakeRelease(t *testing.T, arch string, checksum func(archive []byte) string) *httptest.Server {
	t.Helper()
	var archive strings.Builder
	zipped := gzip.NewWriter(&archive)
	files := tar.NewWriter(zipped)
	for _, f := range []struct{ name, text string }{
		{"dynast", "#!/bin/sh\necho dynast v7.7.7, fake\n"},
		{"man1/dynast.1.gz", "a manual page"},
	} {
		if err := files.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(f.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	name := "dynast_linux_" + arch + ".tar.gz"
	sums := fmt.Sprintf("%064d  %s.spdx.json\n%s  %s\n", 0, name, checksum([]byte(archive.String())), name)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch dir, file := path.Split(r.URL.Path); {
		case !slices.Contains([]string{"/latest/download/", "/download/v7.7.7/"}, dir):
			http.NotFound(w, r)
		case file == name:
			fmt.Fprint(w, archive.String())
		case file == "checksums.txt":
			fmt.Fprint(w, sums)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// TestInstallScript installs a release from a server on loopback. Nothing is installed if anything
// is wrong, and the message says what.
func TestInstallScript(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if _, err := exec.LookPath("wget"); err != nil {
			t.Skip("needs curl or wget")
		}
	}
	sum := func(archive []byte) string { return fmt.Sprintf("%x", sha256.Sum256(archive)) }
	good := fakeRelease(t, runtime.GOARCH, sum)
	wrong := fakeRelease(t, runtime.GOARCH, func([]byte) string { return strings.Repeat("0", 64) })
	foreign := fakeRelease(t, "riscv64", sum)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	prefix := t.TempDir()
	for _, tc := range []struct {
		what, releases string
		args           []string
		machine        string // what uname -m prints
		code           int
		want           string
	}{
		{"the latest release", good.URL, nil, "", 0, "dynast v7.7.7, fake"},
		{"a version", good.URL, []string{"--version", "v7.7.7"}, "", 0, "installed "},
		{"a version without v", good.URL, []string{"--version", "7.7.7"}, "", 0, "installed "},
		{"an unknown version", good.URL, []string{"--version", "v9.9.9"}, "", 1, "cannot download " + good.URL + "/download/v9.9.9/checksums.txt"},
		{"a wrong checksum", wrong.URL, nil, "", 1, "the checksum of dynast_linux_" + runtime.GOARCH + ".tar.gz is wrong"},
		{"no archive for this machine", foreign.URL, nil, "", 1, "cannot download"},
		{"an architecture without a release", good.URL, nil, "mips", 1, "no release for the architecture mips"},
		{"a prefix that is a file", good.URL, []string{"--prefix", file}, "", 1, "cannot write to " + file},
		{"no prefix", good.URL, []string{"--prefix"}, "", 2, "--prefix needs a value"},
		{"an unknown argument", good.URL, []string{"--nonsense"}, "", 2, "unknown argument --nonsense"},
	} {
		t.Setenv("DYNAST_RELEASES", tc.releases)
		dir := filepath.Join(prefix, strings.ReplaceAll(tc.what, " ", "-"))
		search := os.Getenv("PATH")
		if tc.machine != "" {
			bin := t.TempDir()
			uname := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = -s ] && echo Linux || echo %s\n", tc.machine)
			if err := os.WriteFile(filepath.Join(bin, "uname"), []byte(uname), 0o700); err != nil {
				t.Fatal(err)
			}
			search = bin + ":" + search
		}
		cmd := exec.Command("sh", append([]string{repository + "/scripts/install.sh", "--prefix", dir}, tc.args...)...)
		cmd.Env = append(os.Environ(), "PATH="+search)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != tc.code || !strings.Contains(string(out), tc.want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", tc.what, code, tc.code, tc.want, out)
		}
		_, err := os.Stat(filepath.Join(dir, "bin/dynast"))
		_, err2 := os.Stat(filepath.Join(dir, "share/man/man1/dynast.1.gz"))
		if installed := err == nil && err2 == nil; installed != (tc.code == 0) {
			t.Errorf("%s: installed is %t", tc.what, installed)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "bin/.dynast*")); len(left) > 0 {
			t.Errorf("%s: the script left %v", tc.what, left)
		}
	}
}
