package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/dynast-io/dynast/shared/config"
)

// SettingsEnv is the environment variable with the Settings of an engine.
const SettingsEnv = "DYNAST_ENGINE_SETTINGS"

// Settings are the parts of the configuration that an engine needs. A change restarts it.
type Settings struct {
	Client    config.Client
	Quota     int64
	Commit    time.Duration
	Retention config.AutoCompaction
	Compare   time.Duration
	Election  time.Duration
	Heartbeat time.Duration
	// Snapshots is after how many entries Raft makes a snapshot (etcd's --snapshot-count).
	Snapshots           uint64
	LogLevel, LogFormat string
}

// FromConfig returns the settings of a configuration.
func FromConfig(c *config.Config) Settings {
	return Settings{
		Client: c.Client, Quota: int64(c.Store.Quota), Commit: c.Store.CommitInterval, Retention: c.Store.AutoCompaction, Compare: c.Store.CompareInterval,
		Election: c.Hosts.Election, Heartbeat: c.Hosts.Heartbeat, Snapshots: uint64(c.Hosts.SnapshotCount),
		LogLevel: c.Log.Level, LogFormat: c.Log.Format,
	}
}

// Encode returns the value of SettingsEnv.
func (s Settings) Encode() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("engine: cannot marshal settings: %v", err)) // there are only numbers and strings in it
	}
	return string(b)
}

// settingsFromEnv returns the settings that the leader has passed.
func settingsFromEnv() (Settings, error) {
	var s Settings
	text := os.Getenv(SettingsEnv)
	if text == "" {
		return s, fmt.Errorf("engine: only a leader can run this command (%s is not set)", SettingsEnv)
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("engine: %s: %w", SettingsEnv, err)
	}
	return s, nil
}
