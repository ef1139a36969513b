
# What it costs to find the next time of a schedule.
#
# next_runs called for one time, again and again, from SQL: so that the expression
# is read, the zone is looked up and the result goes through the executor each
# time, which a scheduler does only once for a run.  Random expressions, zones and starts; one
# whose next time is 28 years off; and an interval that began 10,000 times
# earlier.  The limit is a built-in function that returns as many rows.

package Calendar;

use strict;
use warnings;
use utf8;

use Bench;
use Server;

my $random = q{
	SELECT format('%s %s %s %s %s',
			(ARRAY['*', '*/7', '30', '0,15,45'])[1 + (random() * 3)::integer],
			(ARRAY['*', '2', '9-17', '*/3'])[1 + (random() * 3)::integer],
			(ARRAY['*', '*', '1', 'L', '15W', '28-31'])[1 + (random() * 5)::integer],
			(ARRAY['*', '*', 'feb', '*/2', '3,9'])[1 + (random() * 4)::integer],
			(ARRAY['*', '*', 'mon-fri', 'sun#2', 'friL'])[1 + (random() * 4)::integer]) AS schedule,
		(ARRAY['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Pacific/Apia', 'Africa/Casablanca'])
			[1 + (random() * 5)::integer] AS zone,
		timestamptz '1990-01-01' + random() * interval '45 years' AS start,
		i
	FROM generate_series(1, 10000) AS i};

my @cases = (
	[
		'random expressions',
		'taskshed.next_runs(schedule, zone, after => start, n => 1)'
	],
	[
		'February 29, eight years off',
		"taskshed.next_runs('0 0 29 2 *', zone, after => '2096-03-01', n => 1)"
	],
	[
		'a Monday that is February 29, 28 years off',
		"taskshed.next_runs('0 0 */28 2 mon#5', zone, after => '2044-03-01', n => 1)"
	],
	[
		"every '1 day', 10,000 days after the first",
		"taskshed.next_runs(every => '1 day', timezone => zone, run_at => start, after => start + interval '10000 days', n => 1)"
	]);

sub measure
{
	my $database = database('taskshed');

	sql($database,
		"SELECT setseed(0.5); CREATE TABLE schedules AS $random; ANALYZE schedules"
	);
	foreach my $case (@cases)
	{
		my ($what, $call) = @$case;
		my $figures =
		  alternate($what => sub { microseconds($database, $call) });

		row(part   => 'calendar',
			what   => "next_runs: $what",
			who    => 'taskshed',
			values => $figures->{$what},
			unit   => 'µs a call');
	}
	my $limit =
	  alternate(
		limit => sub { microseconds($database, 'generate_series(i, i)') });
	row(part   => 'calendar',
		what   => 'a function that returns one row',
		who    => 'limit: generate_series(i, i)',
		values => $limit->{limit},
		unit   => 'µs a call');
	return;
}

# How long one call takes, of so many.
sub microseconds
{
	my ($database, $call) = @_;
	my $rounds = int($size{calendar} / 10_000) || 1;

	return value(
		$database, qq{
		CREATE TEMPORARY TABLE began AS SELECT clock_timestamp() AS at;
		SELECT count(*) FROM (SELECT $call FROM generate_series(1, $rounds) AS round, schedules) AS calls;
		SELECT extract(epoch FROM clock_timestamp() - at) * 1e6 / ($rounds * 10000) FROM began;
		DROP TABLE began});
}

1;
