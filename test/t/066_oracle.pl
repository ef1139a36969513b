
# When schedules run, compared with what others make of them: 20,000 random cron
# expressions with croniter, which Debian has, and 5,000 random intervals with
# Python's calendar.  test/oracle.py is the other side, and says what differs.
#
# TASKSHED_ORACLE_SEED=n and TASKSHED_ORACLE_TRIPLES=n for others, or more.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $oracle = "$FindBin::RealBin/../oracle.py";
my ($python) = grep {
	run_log([ $_, '-c', 'import croniter, zoneinfo' ], '2>', \my $ignored)
} 'python3', '/usr/bin/python3';
plan skip_all => 'Python has no croniter (Debian: python3-croniter)'
  if !defined $python;

# What lies behind it is not compared: it can be generations away.
my $horizon = '2100-01-01';

my $node     = taskshed_node('oracle');
my $folder   = $node->basedir;
my $sharedir = $node->config_data('--sharedir');

# Both sides read the same rules of time zones: a server has its own or the system's.
local $ENV{PYTHONTZPATH}   = "$sharedir/timezone" if -d "$sharedir/timezone";
local $ENV{ORACLE_SEED}    = $ENV{TASKSHED_ORACLE_SEED}    || 1;
local $ENV{ORACLE_TRIPLES} = $ENV{TASKSHED_ORACLE_TRIPLES} || 20_000;
note("TASKSHED_ORACLE_SEED=$ENV{ORACLE_SEED}");

my ($counts, $stderr) = run_command([ $python, $oracle, $folder, $horizon ]);
is($stderr, '', 'the oracle has spoken');
note($counts);

$node->safe_psql(
	'postgres', qq{
CREATE TABLE cron (expression text, zone text, after timestamptz, expected timestamptz[]);
CREATE TABLE every (every interval, zone text, anchor timestamptz, after timestamptz, expected timestamptz[]);
\\copy cron FROM '$folder/cron.tsv'
\\copy every FROM '$folder/every.tsv'
});

# Shows some of what differs, the shortest first.
sub same
{
	my ($what, $differing) = @_;
	my ($n) = $node->safe_psql(
		'postgres', qq{
		SET timezone = 'UTC'; SET bytea_output = 'escape';
		CREATE TABLE differing AS $differing; SELECT count(*) FROM differing});

	is($n, '0', $what)
	  or diag(
		$node->safe_psql(
			'postgres', q{
			SET timezone = 'UTC';
			SELECT d FROM differing d ORDER BY length(d::text) LIMIT 10}));
	$node->safe_psql('postgres', 'DROP TABLE differing');
	return;
}

my ($n) = $node->safe_psql('postgres', q{SELECT count(*) FROM cron});
is($n, $ENV{ORACLE_TRIPLES}, 'as many expressions as were asked for');

# Of fewer than ten, the next is behind the horizon.
same(
	"$n cron expressions run when the oracle says", qq{
	SELECT * FROM (SELECT cron.*, ARRAY(SELECT taskshed.next_runs(expression, zone, after => after, n => 10)) AS actual
		FROM cron WHERE expected <> '{}') c
	WHERE actual[:cardinality(expected)] IS DISTINCT FROM expected
		OR actual[cardinality(expected) + 1] < '$horizon'});

# Those that never come are refused.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION is_refused(expression text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM taskshed.next_runs(expression);
	RETURN false;
EXCEPTION WHEN invalid_parameter_value THEN
	RETURN SQLERRM LIKE '%never matches';
END $$});
my $never =
  $node->safe_psql('postgres',
	q{SELECT count(*) FROM cron WHERE expected = '{}'});
same(
	"$never of the expressions never come, and are refused",
	q{SELECT * FROM cron WHERE expected = '{}' AND NOT is_refused(expression)}
);

$n = $node->safe_psql('postgres', q{SELECT count(*) FROM every});
same(
	"$n intervals run when the oracle says", q{
	SELECT * FROM (SELECT every.*, ARRAY(SELECT taskshed.next_runs(every => every, timezone => zone, run_at => anchor,
			after => after, n => 10)) AS actual
		FROM every) e
	WHERE actual IS DISTINCT FROM expected});

$node->stop;
done_testing();
