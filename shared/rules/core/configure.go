package core

// configured applies a changed configuration. The number of followers is not part of it: the
// roster holds that number, see ScaleRequested.
func (c *Core) configured(ev Configured) {
	c.cfg.MinSync = ev.MinSync
	c.cfg.Keeper.StartTimeout = ev.StartTimeout
	if c.role == Leading {
		c.lead.keeper.SetStartTimeout(ev.StartTimeout)
		c.commit() // fewer followers may be enough now, or more may be needed
	}
}
