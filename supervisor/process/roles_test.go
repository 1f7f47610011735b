package process

// roles are what helper processes do, besides waiting and exiting.
var roles = map[string]func(arg string){}
