# Written by 'dynast import' from Procfile (procfile). A comment in a block names what has no
#   counterpart.
# A program without dir runs in the directory of the configuration file.

service "release" {
  # release: it runs once at each start, and the other services wait until it has succeeded. Delete
  #   the block and its name in after if it has to run at a deployment only.
  script  = "exec bin/rails db:migrate"
  restart = "never"
}

service "web" {
  # PORT: a Procfile runner sets this variable (foreman: 5000, 5100, ...). Add env = { PORT = "5000"
  #   }, or set it in the environment of dynast.
  script  = "exec bundle exec puma -C config/puma.rb -p $${PORT:-3000}"
  restart = "always"
  after   = ["release"]
}

service "worker" {
  script  = "RAILS_MAX_THREADS=10 bundle exec sidekiq -q default -q \"mail\""
  restart = "always"
  after   = ["release"]
}

service "clock" {
  script  = "cd jobs && exec ruby clock.rb 2>&1"
  restart = "always"
  after   = ["release"]
}

service "css" {
  script  = "exec yarn build:css --watch"
  restart = "always"
  after   = ["release"]
}

service "literal" {
  script  = "echo '%%{http_code} $$${x} #{y}' | tee \"out\\log\""
  restart = "always"
  after   = ["release"]
}
