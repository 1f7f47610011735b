package core

// configured takes over what an operator changed in the configuration. How many
// followers are kept is not among it: that is the roster's, see ScaleRequested.
func (c *Core) configured(ev Configured) {
	c.cfg.MinSync = ev.MinSync
	c.cfg.Keeper.StartTimeout = ev.StartTimeout
	if c.role == Leading {
		c.lead.keeper.SetStartTimeout(ev.StartTimeout)
		c.commit() // fewer may suffice now, or more be missing
	}
}
