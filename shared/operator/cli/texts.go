package cli

// The groups of commands in the help.
const (
	groupRun      = "run"
	groupLook     = "look"
	groupChange   = "change"
	groupServices = "services"
	groupHosts    = "hosts"
	groupData     = "data"
	groupProve    = "prove"
	groupOther    = "other"
)

var groups = []struct{ id, title string }{
	{groupRun, "Run a cluster:"},
	{groupLook, "Look at it:"},
	{groupChange, "Change it:"},
	{groupServices, "Services (your own programs):"},
	{groupHosts, "Several hosts:"},
	{groupData, "Data:"},
	{groupProve, "Measure and test:"},
	{groupOther, "Other:"},
}

// text is what the help and the manual page of a command say in addition.
type text struct {
	group   string // of a command of dynast itself
	example string
	// synonyms are words that people may type in place of the command.
	synonyms []string
	// exit has the exit codes that are not those of every command, as Markdown.
	exit string
}

const (
	exitLook   = "**4**: no leader answers, or there is no data directory.\n"
	exitConfig = "**2**: the configuration has a mistake.\n"
	exitWaits  = "**1**: the request was refused, an instance failed, or --wait was too short.\n\n" + exitLook
)

// texts has the texts of the commands, by their paths.
var texts = map[string]text{
	"up": {groupRun, "dynast up\ndynast up --data-dir /var/lib/dynast --client-listen 127.0.0.1:12379\ndynast up --config /etc/dynast.hcl --ready-file /run/dynast.ready",
		[]string{"serve", "server", "daemon", "launch", "boot", "begin"}, exitMember},
	"join": {groupRun, "dynast join --leader 127.0.0.1:7400", []string{"follow"}, exitMember},
	"stop": {groupRun, "dynast stop                   # everything\ndynast stop --keep-services   # dynast, but not the services\ndynast stop web db/1          # services, or single instances",
		[]string{"down", "shutdown", "halt", "quit", "exit"}, exitWaits},
	"check":   {groupRun, "dynast check --config own.hcl", []string{"validate", "lint"}, "**2**: the configuration has a mistake, or a service cannot run on this host.\n"},
	"config":  {groupRun, "dynast config print\ndynast config check", []string{"configuration", "settings"}, ""},
	"tree":    {groupLook, "dynast tree\ndynast tree --watch\ndynast tree --json", []string{"show", "members", "processes", "cluster"}, exitLook},
	"top":     {groupLook, "dynast top", []string{"dashboard", "monitor", "ui"}, exitLook},
	"status":  {groupLook, "dynast status\ndynast status --check && echo healthy\ndynast status --json", []string{"stat", "state", "health", "healthcheck", "info", "ping"}, exitStatus},
	"events":  {groupLook, "dynast events --since 1h\ndynast events --follow --json", []string{"history"}, exitLook},
	"logs":    {groupLook, "dynast logs --follow\ndynast logs web/1 --tail 100\ndynast logs 127.0.0.1:7400 --since 10m", []string{"log", "tail", "journal", "output"}, "**1**: a name is unknown, or there is nothing to read.\n"},
	"promote": {groupChange, "dynast promote\ndynast promote 127.0.0.1:7401\ndynast promote host-b", []string{"handover", "failover", "switch"}, exitLook},
	"add":     {groupChange, "dynast add", []string{"grow"}, exitLook},
	"remove":  {groupChange, "dynast remove 127.0.0.1:7402", []string{"retire"}, exitLook},
	"scale":   {groupChange, "dynast scale 4", []string{"resize", "followers"}, "**2**: the number is not allowed.\n\n" + exitLook},
	"reload":  {groupChange, "dynast reload --dry-run\ndynast reload\ndynast reload web", []string{"reconfigure", "apply", "hup"}, "**2**: the configuration has a mistake. Nothing was changed.\n\n" + exitLook},
	"upgrade": {groupChange, "dynast upgrade\ndynast upgrade --binary ./dynast.new", []string{"update"}, exitLook},
	"ps":      {groupServices, "dynast ps\ndynast ps web --json", []string{"list", "ls", "services"}, "**1**: there is no such service.\n\n" + exitLook},
	"start":   {groupServices, "dynast start web\ndynast start web/1 db", []string{"enable"}, exitWaits},
	"restart": {groupServices, "dynast restart web\ndynast restart --rolling web", []string{"bounce"}, exitWaits},
	"signal":  {groupServices, "dynast signal web\ndynast signal -s USR1 web/1", []string{"notify"}, exitWaits},
	"kill": {groupServices, "dynast kill leader            # the heir takes over\ndynast kill heir\ndynast kill 127.0.0.1:7402\ndynast kill web/1",
		[]string{"terminate", "sigkill", "killall", "crash"}, exitWaits},
	"run": {groupServices, "dynast run --name note -- sh -c 'date; sleep 60'\ndynast run --rm --tail -- ./job", []string{"exec", "spawn"},
		"With --tail the exit code is that of the program, 128 and the number of the signal that ended it, or **130** after Ctrl-C.\n\n" + exitWaits},
	"import":        {groupServices, "dynast import Procfile >services.hcl\ndynast import /etc/supervisor/supervisord.conf", []string{"convert"}, "**2**: a file has a mistake.\n"},
	"hosts":         {groupHosts, "dynast hosts\ndynast hosts init --address 10.0.0.1:2380\ndynast hosts token >token", []string{"host", "nodes", "peers"}, exitLook},
	"config print":  {"", "dynast config print\ndynast config print --config own.hcl --followers 4", nil, exitConfig},
	"config check":  {"", "dynast config check\ndynast config check own.hcl", nil, exitConfig},
	"hosts init":    {"", "dynast hosts init --address 10.0.0.1:2380", nil, exitLook},
	"hosts token":   {"", "dynast hosts token >token\ndynast hosts token --once --for 1h >token\ndynast hosts token --list", nil, exitLook},
	"hosts remove":  {"", "dynast hosts remove host-c", nil, exitLook},
	"hosts leave":   {"", "dynast hosts leave\ndynast hosts leave --last", nil, exitLook},
	"hosts recover": {"", "dynast hosts recover --dry-run\ndynast hosts recover --yes", nil, exitLook},
	"put":           {groupData, "dynast put greeting hello\ndynast put greeting <file\ndynast put -- greeting -1", []string{"set", "write"}, exitCtl},
	"get":           {groupData, "dynast get greeting\ndynast get --prefix app/ --keys-only\ndynast get greeting -w json", []string{"read", "cat"}, exitCtl},
	"del":           {groupData, "dynast del greeting\ndynast del --prefix app/", []string{"delete", "rm", "unset", "erase"}, exitCtl},
	"ctl": {groupData, "dynast ctl watch --prefix app/\ndynast ctl lease grant 60\ndynast ctl member list -w table\ndynast ctl options      # all flags that every command takes",
		[]string{"etcdctl"}, exitCtl},
	"snapshot":         {groupData, "dynast snapshot save backup.db\ndynast snapshot restore backup.db --data-dir new", []string{"backup"}, ""},
	"snapshot save":    {"", "dynast snapshot save backup.db", nil, exitCtl},
	"snapshot status":  {"", "dynast snapshot status backup.db", nil, ""},
	"snapshot restore": {"", "dynast snapshot restore backup.db --data-dir new\ndynast snapshot restore /var/lib/etcd --data-dir new", nil, ""},
	"bench":            {groupProve, "dynast bench put --clients 64\ndynast bench failover --kills 10", []string{"benchmark", "perf"}, exitLook},
	"bench put":        {"", "dynast bench put --clients 64 --duration 10s\ndynast bench put --endpoints 10.0.0.1:2379 --json", nil, exitLook},
	"bench get":        {"", "dynast bench get --clients 64 --serializable", nil, exitLook},
	"bench mixed":      {"", "dynast bench mixed --clients 64 --reads 50", nil, exitLook},
	"bench txn":        {"", "dynast bench txn --clients 64", nil, exitLook},
	"bench watch":      {"", "dynast bench watch --clients 64", nil, exitLook},
	"bench lease":      {"", "dynast bench lease --clients 64", nil, exitLook},
	"bench idle":       {"", "dynast bench idle --duration 1m", nil, exitLook},
	"bench memory":     {"", "dynast bench memory --keys 100000", nil, exitLook},
	"bench failover":   {"", "dynast bench failover --kills 10\ndynast bench failover --promote --clients 64", nil, "**1**: an acknowledged write is missing.\n\n" + exitLook},
	"chaos":            {groupProve, "dynast chaos\ndynast chaos --soak --html report.html\ndynast chaos --seed 42 --faults kill-leader=5,kill-all", []string{"torture"}, "**1**: a check failed.\n"},
	"sim":              {groupProve, "", []string{"simulate", "simulator"}, "**1**: a rule was broken.\n"},
	"version":          {groupOther, "dynast version\ndynast version --json", nil, ""},
	"man":              {groupOther, "dynast man man\nman -l man/dynast-up.1", []string{"manual", "manpage"}, ""},
	"completion":       {groupOther, "", []string{"complete"}, ""},
	"help":             {groupOther, "", nil, ""},
}

const exitMember = `**0**: it ended as it was told to.

**3**: another leader owns the data directory.

**4**: the leader to follow cannot be reached.

**5**: the disk was full at the start.

**6**: no replica is usable, or the database is damaged.

**7**: the slot belongs to another process (followers only).
`

const exitStatus = `**0**: the cluster is healthy. Without --check also: it is degraded.

**1**: with --check: it is degraded. It serves clients, but a follower or an instance is missing, or writes are refused.

**4**: it is down. No leader answers, or there is no data directory.
`

const exitCtl = `**128**: a wrong argument; the other codes are those of etcdctl, too.

**4**: nothing runs in the data directory.
`
