"""Looking on while a run trains: `follow` reads what is new, `page` and `server` show it to this machine's browsers."""
