package imports

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dynast-io/dynast/shared/config"
)

// limits converts the directives that bound what a program may use and do.
func (x *serviceUnit) limits(d directive) (bool, error) {
	switch d.name {
	case "LimitNOFILE":
		return true, x.count(d, "limits.open_files")
	case "TasksMax":
		return true, x.count(d, "limits.processes")
	case "LimitNPROC":
		if x.attrs["limits.processes"] != nil {
			x.notes.add(d.String(), "the block has one limit of processes. TasksMax counts.")
			return true, nil
		}
		return true, x.count(d, "limits.processes")
	case "MemoryMax", "MemoryLimit":
		return true, x.memory(d)
	case "CPUQuota":
		percent, err := strconv.ParseFloat(strings.TrimSuffix(d.value, "%"), 64)
		if err != nil || !strings.HasSuffix(d.value, "%") || !(percent > 0 && percent < 1e6) {
			return true, d.at.errorf("CPUQuota: %q is not a percentage", d.value)
		}
		x.set("limits.cpu", math.Round(percent*10)/1000)
	case "NoNewPrivileges":
		on, err := unitBoolean(d)
		if on {
			x.set("security.no_new_privileges", true)
		} else if err == nil {
			x.notes.add(d.String(), "not needed. This is the default.")
		}
		return true, err
	case "CapabilityBoundingSet":
		return true, x.boundingSet(d)
	default:
		return false, nil
	}
	return true, nil
}

func unitBoolean(d directive) (bool, error) {
	switch strings.ToLower(d.value) {
	case "yes", "true", "on", "1", "y", "t":
		return true, nil
	case "no", "false", "off", "0", "n", "f":
		return false, nil
	}
	return false, d.at.errorf("%s: %q is not a boolean", d.name, d.value)
}

// count reads a limit: N, SOFT:HARD, infinity, or a percentage.
func (x *serviceUnit) count(d directive, attr string) error {
	value := d.value
	if soft, hard, ok := strings.Cut(value, ":"); ok {
		x.notes.add(d.String(), "dynast has one limit. It is the hard limit, unless that is infinity.")
		if value = hard; hard == "infinity" {
			value = soft
		}
	}
	if value == "infinity" || strings.HasSuffix(value, "%") {
		x.notes.add(d.String(), "dynast has no such value for "+attr+". Without a value, the limit of dynast itself applies.")
		return nil
	}
	n, err := size(value)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return d.at.errorf("%s: %q is not a whole number from 1", d.name, d.value)
	}
	x.set(attr, int(n))
	return nil
}

func (x *serviceUnit) memory(d directive) error {
	if d.value == "infinity" || strings.HasSuffix(d.value, "%") {
		x.notes.add(d.String(), "dynast has no such value. Write the bytes into limits { memory } if you need a limit.")
		return nil
	}
	n, err := size(d.value)
	if err != nil || n == 0 {
		return d.at.errorf("%s: %q is not a number of bytes", d.name, d.value)
	}
	x.set("limits.memory", sizeText(n))
	return nil
}

// boundingSet reads a list of capabilities. A list with '~' removes them.
func (x *serviceUnit) boundingSet(d directive) error {
	list, remove := strings.CutPrefix(d.value, "~")
	if x.capabilities == nil {
		x.capabilities = map[string]bool{}
		for _, name := range config.Capabilities {
			x.capabilities[name] = remove
		}
	}
	if d.value == "" {
		clear(x.capabilities)
	}
	for _, name := range strings.Fields(list) {
		short := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if !slices.Contains(config.Capabilities, short) {
			return d.at.errorf("CapabilityBoundingSet: unknown capability %q", name)
		}
		x.capabilities[short] = !remove
	}
	return nil
}

func (x *serviceUnit) dropCapabilities() {
	if x.capabilities == nil {
		return
	}
	var drop []string
	for _, name := range config.Capabilities {
		if !x.capabilities[name] {
			drop = append(drop, name)
		}
	}
	slices.Sort(drop)
	switch len(drop) {
	case 0:
	case len(config.Capabilities):
		x.set("security.drop_capabilities", []string{"all"})
	default:
		x.set("security.drop_capabilities", drop)
	}
}

var specifier = pattern(`%.`)

// specifiers replaces the specifiers of systemd in the parts of a text that are not marked.
func (x *serviceUnit) specifiers(text string) string {
	var b strings.Builder
	for text != "" {
		if isMark(text[0]) {
			end := 2 + strings.IndexByte(text[1:], text[0])
			b.WriteString(text[:end])
			text = text[end:]
			continue
		}
		n := 0
		for n < len(text) && !isMark(text[n]) {
			n++
		}
		b.WriteString(specifier().ReplaceAllStringFunc(text[:n], x.specifier))
		text = text[n:]
	}
	return b.String()
}

var systemDirectories = map[string]string{"%t": "/run", "%S": "/var/lib", "%C": "/var/cache", "%L": "/var/log", "%E": "/etc", "%T": "/tmp", "%V": "/var/tmp"}

func (x *serviceUnit) specifier(found string) string {
	u := x.unit
	switch found {
	case "%%":
		return "%"
	case "%i", "%I":
		if u.template {
			return expression("${INSTANCE}")
		}
		if found == "%I" && strings.ContainsAny(u.instance, `-\`) {
			x.notes.add("%I", "the name of the instance was written as it is, without unescaping.")
		}
		return u.instance
	case "%n":
		return u.name
	case "%N":
		return u.stem
	case "%p":
		return u.prefix
	case "%H":
		return expression("$(hostname)")
	case "%h":
		if u.user {
			return expression("${HOME}")
		}
		return "/root"
	case "%u":
		if u.user {
			return expression("$(id -un)")
		}
		return "root"
	case "%U":
		if u.user {
			return expression("$(id -u)")
		}
		return "0"
	}
	if dir, ok := systemDirectories[found]; ok && (!u.user || found == "%T" || found == "%V") {
		return dir
	}
	x.notes.add(found, "this specifier was not expanded. Write the value by hand.")
	return found
}

const (
	unknownText = "dynast does not know this directive."
	installText = "not needed. Every service starts with 'dynast up'."
	sandboxText = "dynast has no sandbox. Set it in the unit that starts dynast, or start the program through bwrap."
	createText  = `dynast creates no directories. Create it beforehand, or in a service with restart = "never" that this one names in after.`
	toolText    = "dynast has no setting for it. Start the program through nice, ionice, chrt, choom or taskset."
)

// unitTexts are comments about directives without a counterpart. The first pattern that matches
// counts.
var unitTexts = []struct {
	pattern func() *regexp.Regexp
	text    string
}{
	{pattern(`^(Documentation|SourcePath|X-.*)$`), "for information only."},
	{pattern(`^(NotifyAccess|GuessMainPID|DefaultDependencies|CollectMode)$`), "not needed by dynast."},
	{pattern(`^(TimeoutAbortSec|SendSIGHUP|FinalKillSignal|WatchdogSignal|KillMode|SendSIGKILL)$`),
		"dynast sends the stop signal to the main process, and SIGKILL to the whole process tree after stop { timeout }."},
	{pattern(`^(PIDFile|RemainAfterExit|BusName|ExitType)$`), "not needed. dynast follows the process that it starts, and a task that has succeeded stays done."},
	{pattern(`^(StandardOutput|StandardError|SyslogIdentifier|SyslogFacility|SyslogLevel.*|Log.*)$`), outputText},
	{pattern(`^(StandardInput.*|TTY.*)$`), "the standard input of a program is /dev/null."},
	{pattern(`^PassEnvironment$`), "not needed. A program gets the environment of dynast."},
	{pattern(`^UnsetEnvironment$`), "a program gets the environment of dynast. Use script with unset NAME."},
	{pattern(`^(Runtime|State|Cache|Logs|Configuration)Directory.*$`), createText},
	{pattern(`^(StartLimitInterval(Sec)?|RestartSteps)$`), "the delay of backoff { } doubles with each failure and decays over time. It has no fixed interval."},
	{pattern(`^(StartLimitAction|FailureAction|SuccessAction|RebootArgument|OnFailure|OnSuccess|JobTimeout.*)$`), "dynast starts nothing when a service fails. Watch 'dynast events' or the metrics."},
	{pattern(`^(TimeoutStartSec|TimeoutStartFailureMode|RuntimeMaxSec)$`), "dynast has no such time limit. Use alive { }, or start the program through timeout."},
	{pattern(`^(SuccessExitStatus|RestartPreventExitStatus|RestartForceExitStatus)$`), "dynast takes exit status 0 for a success and every other one for a failure."},
	{pattern(`^(Condition|Assert).*$`), "dynast checks no conditions. Check them in script if they matter."},
	{pattern(`^(PartOf|Upholds|Conflicts|PropagatesReloadTo|ReloadPropagatedFrom|StopWhenUnneeded|RefuseManual.*|AllowIsolate|RequiresMountsFor|WantsMountsFor|JoinsNamespaceOf|Sockets)$`),
		"dynast has no such relation between services. needs and after are the only ones."},
	{pattern(`^(Nice|CPUScheduling.*|IOScheduling.*|OOM.*|CPUAffinity|NUMA.*|CoredumpFilter|TimerSlackNSec)$`), toolText},
	{pattern(`^Limit[A-Z]+$`), "dynast has no such limit. Start the program through prlimit."},
	{pattern(`^(Memory|CPU|IO|Tasks|Startup|BlockIO|IP|Delegate|Slice|Allowed).*$`), "dynast has no such setting for a cgroup. limits { } has memory, cpu and processes."},
	{pattern(`^(DynamicUser|SupplementaryGroups|PAMName|AmbientCapabilities|SecureBits)$`), "dynast knows user and group only. Create a user with the groups and rights that the program needs."},
	{pattern(`^(LoadCredential.*|SetCredential.*|ImportCredential)$`), "dynast passes no credentials. Use env_file with mode 0600."},
	{pattern(`^(Protect|Private|Restrict|SystemCall|ReadWrite|ReadOnly|Inaccessible|Exec|NoExec|Temporary|Bind|Root|Device|Mount|Lock|MemoryDeny|Keyring|RemoveIPC|Personality|AppArmor|SELinux|Smack|IgnoreSIGPIPE|UtmpIdentifier|Network).*$`), sandboxText},
}

func unitText(d directive) string {
	for _, t := range unitTexts {
		if t.pattern().MatchString(d.name) {
			return t.text
		}
	}
	return unknownText
}
