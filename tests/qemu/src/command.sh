# A step that runs the command for users, which a test adds to the archive.
#
#   survey     what it would save here, as JSON, with a line in front and one
#              behind

step_survey() {
	echo "warmbus: linux: survey begins"
	warmbus survey --json --progress never
	echo "warmbus: linux: survey ends with status $?"
}
