
# What a text in kwargs means in a run depends on the task's time zone, and not
# on the settings of the worker, which are those of the role.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('value_settings');

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
ALTER ROLE app SET timezone = 'Asia/Tokyo';
ALTER ROLE app SET datestyle = 'SQL, DMY';
ALTER ROLE app SET intervalstyle = 'sql_standard';
CREATE FUNCTION see(t timestamptz, d date, i interval) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', t AT TIME ZONE 'UTC', to_char(d, 'YYYY-MM-DD'), extract(epoch FROM i), 'with',
		current_setting('timezone'), current_setting('datestyle'), current_setting('intervalstyle'))
$$;
CREATE PROCEDURE see_too(t timestamptz, d date, i interval, INOUT seen text DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	seen := public.see(t, d, i);
END $$;
});

my $kwargs =
  q({"t": "2100-07-01 12:00", "d": "01/02/2100", "i": "-1 2:00:00"});

foreach my $callback ('see', 'see_too')
{
	$node->safe_psql(
		'postgres', qq{
		SET timezone = 'Europe/Berlin'; SET datestyle = 'German, DMY';
		SET SESSION AUTHORIZATION app;
		SELECT taskshed.add_task('public.$callback', kwargs => '$kwargs', timezone => 'America/New_York', task_id => '$callback')}
	);
	await_no_task($node, $callback);
	is( $node->safe_psql(
			'postgres',
			"SELECT result FROM taskshed.runs WHERE task_id = '$callback'"),
		'01/07/2100 16:00:00 2100-01-02 -79200.000000 with Asia/Tokyo SQL, DMY sql_standard',
		"$callback: values are those of the task's zone, settings the role's"
	);
}

$node->stop;
done_testing();
