
# Whether the number of tasks in the table matters.
#
# The same drain and the same lag, in turn in a database that has no other tasks
# and in one that has many, due much later.  The lags of all rounds are put
# together: the p99 of one round hangs on a few of them.

package Size;

use strict;
use warnings;

use Bench;
use Contestants;
use Server;

sub measure
{
	my @databases = (database('taskshed'), 'taskshed_big');
	my $full      = "taskshed, $size{size_ahead} tasks in the table";

	add_tasks_ahead('taskshed_big', $size{size_ahead});

	my $drains = alternate(
		map {
			my $database = $_;
			$_ => sub { drain($database, $size{drain}, 'noop') }
		} @databases);
	my ($empty, $many) = map { field($drains->{$_}, 'rate') } @databases;

	row(part   => 'size',
		what   => 'drain, no-op',
		who    => 'taskshed, empty table',
		values => $empty,
		unit   => 'tasks/s');
	row(part       => 'size',
		what       => 'drain, no-op',
		who        => $full,
		values     => $many,
		unit       => 'tasks/s',
		ratio      => ratios($many, $empty),
		to         => 'the empty one',
		ratio_goal => [ '>=', 0.9 ]);

	enabled($_, 1) foreach @databases;
	my $lags = alternate(
		map {
			my $database = $_;
			$_ => sub {
				lag_ahead($database, $size{size_lags}, $size{lag_span_s});
			}
		} @databases);
	foreach my $p (50, 99)
	{
		($empty, $many) = map {
			ref $lags->{$_}
			  ? [ percentile($p / 100, map { @$_ } @{ $lags->{$_} }) ]
			  : $lags->{$_}
		} @databases;
		row(part   => 'size',
			what   => "lag p$p, all rounds",
			who    => 'taskshed, empty table',
			values => $empty,
			unit   => 'ms');
		row(part       => 'size',
			what       => "lag p$p, all rounds",
			who        => $full,
			values     => $many,
			unit       => 'ms',
			ratio      => ratios($many, $empty),
			to         => 'the empty one',
			ratio_goal => [ '<=', 1.1 ]);
	}
	return;
}

1;
