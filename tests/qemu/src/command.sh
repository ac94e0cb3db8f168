# Steps that run the command for users, which a test adds to the archive.
#
#   survey     what it would save here
#   status     what the kernel does with what it was handed
#
# Both are JSON, with a line in front and one behind.

step_survey() {
	echo "warmbus: linux: survey begins"
	warmbus survey --json --progress never
	echo "warmbus: linux: survey ends with status $?"
}

step_status() {
	echo "warmbus: linux: status begins"
	warmbus status --json
	echo "warmbus: linux: status ends with status $?"
}
