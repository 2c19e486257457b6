# Runs one program for a parent that holds the other end of our standard input, and ends it when that parent is gone.
#
# Usage: sh supervised.sh STDOUT STDERR ABANDONED PROGRAM [ARGUMENT...], as the leader of a process group of its own
#   STDOUT, STDERR  files to which the program's output is appended
#   ABANDONED       directory to remove if the parent vanishes; empty for none
# Standard input carries one signal name a line while the program runs, and at last the line "end". End of file without
# it means that the parent died: only then is ABANDONED removed. Standard output says "started PID", then "ended CODE".
stdout=$1 stderr=$2 abandoned=$3
shift 3

# A background job gets /dev/null as standard input, so the orders need a descriptor of their own.
exec 3<&0 </dev/null
"$@" 3<&- >>"$stdout" 2>>"$stderr" &
program=$!

# With the parent gone, writing to standard output must not end us before the cleaning is done.
trap '' PIPE
# Whoever ends the supervisor means the program.
trap 'kill -s KILL "$program"' HUP INT TERM
echo "started $program"

(
    while read -r signal; do kill -s "$signal" "$program"; done
    kill -s KILL "$program"
) <&3 &
orders=$!

wait "$program"
code=$?
# From here on nobody may signal the program: its number can already belong to another process.
# KILL, because a shell that has just been forked can lose anything milder.
kill -s KILL "$orders"
wait "$orders"
echo "ended $code"

while read -r order; do
    if [ "$order" = end ]; then abandoned=; break; fi
done <&3
if [ -n "$abandoned" ]; then rm -rf -- "$abandoned"; fi
# What the program itself started goes with it, and so do we.
kill -s KILL 0
