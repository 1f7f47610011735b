package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
)

const (
	// upgradePatience is how long followers of a new build may take until they are in sync.
	// Each gets the whole database: first one follower, then the others.
	upgradePatience = 5 * time.Minute
	// versionTimeout is how long a build may take to print its version.
	versionTimeout = 5 * time.Second
)

// build is a program to upgrade to.
type build struct{ path, version string }

// errSameBuild says that there is no new build.
var errSameBuild = errors.New("the file that this leader runs from has not changed")

// findBuild checks a program before a process is started with it. An empty path means the file
// that this process was started from, which must have been replaced since.
func findBuild(ctx context.Context, path string) (build, error) {
	if path == "" {
		own, err := os.Readlink(proc.Executable())
		if err != nil {
			return build{}, fmt.Errorf("find the file that this leader runs from: %w", err)
		}
		path = strings.TrimSuffix(own, " (deleted)") // the kernel's mark for a replaced file
		if same, err := sameFile(path, proc.Executable()); err != nil {
			return build{}, fmt.Errorf("the file that this leader runs from: %w; name one with --binary", err)
		} else if same {
			return build{}, fmt.Errorf("%w: %s; put the new build there, or name it with --binary", errSameBuild, path)
		}
	}
	if !filepath.IsAbs(path) {
		return build{}, fmt.Errorf("%s is not an absolute path", path)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return build{}, fmt.Errorf("the new build: %w", err)
	case !info.Mode().IsRegular():
		return build{}, fmt.Errorf("the new build %s is not a regular file", path)
	case info.Mode().Perm()&0o111 == 0:
		return build{}, fmt.Errorf("the new build %s is not executable (its mode is %04o); chmod +x", path, info.Mode().Perm())
	}
	version, err := versionOf(ctx, path)
	return build{path: path, version: version}, err
}

func sameFile(a, b string) (bool, error) {
	ia, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	ib, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(ia, ib), nil
}

// versionOf runs a program to get its version. That also checks that the program is dynast.
func versionOf(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version")
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second // for children that keep its output open
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("the new build %s did not print its version within %s", path, versionTimeout)
	}
	if err != nil {
		return "", fmt.Errorf("the new build %s cannot print its version: %w", path, err)
	}
	rest, ok := strings.CutPrefix(out.String(), "dynast ")
	version, _, more := strings.Cut(rest, ",")
	if !ok || !more || version == "" {
		return "", fmt.Errorf("%s is not a build of dynast: 'version' prints %q", path, clipped(out.String()))
	}
	return version, nil
}

// clipped returns the beginning of a text, for a message.
func clipped(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(s, "?"))
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}
