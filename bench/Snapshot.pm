
# What an old snapshot does to the queue.
#
# While a REPEATABLE READ transaction is open nothing that is deleted or updated
# can be cleaned away.  A queue that reads over its dead rows becomes slower and
# slower then.  So the last tenth of the tasks is compared with the first tenth
# of the same drain, and the whole with a drain without the transaction.  The
# transaction is opened before the tasks are added.
#
# Then the same with one recurring task, all of whose times are long due: each
# run leaves a dead version of the same row.

package Snapshot;

use strict;
use warnings;

use Bench;
use Contestants;
use Server;

sub measure
{
	my $database = database('taskshed');

	rows(
		'one-off tasks',
		$size{snapshot},
		alternate(
			without => sub { drain($database, $size{snapshot}, 'noop') },
			with    => sub {
				held($database,
					sub { drain($database, $size{snapshot}, 'noop') });
			}));
	rows(
		'runs of one recurring task',
		$size{snapshot_recurring},
		alternate(
			without =>
			  sub { drain_recurring($database, $size{snapshot_recurring}) },
			with => sub {
				held(
					$database,
					sub {
						drain_recurring($database, $size{snapshot_recurring});
					});
			}));
	return;
}

# Does something while an old snapshot is held.
sub held
{
	my ($database, $sub) = @_;
	my $session = session($database, undef, 'snapshot');

	$session->start(
		'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM taskshed.tasks'
	);
	$session->finish;
	my $figures = eval { $sub->() };
	my $error   = $@;
	$session->start('COMMIT');
	$session->finish;
	return $figures || die $error;
}

sub rows
{
	my ($what, $n, $figures) = @_;
	my ($without, $with) = map { $figures->{$_} } qw(without with);
	my ($rate, $held)  = (field($without, 'rate'), field($with, 'rate'));
	my ($first, $last) = (field($with, 'first'), field($with, 'last'));
	my %common = (part => 'snapshot', what => "$n $what", unit => 'tasks/s');

	row(%common, who => 'taskshed', values => $rate);
	row(%common,
		who        => 'taskshed, an old snapshot held',
		values     => $held,
		ratio      => ratios($held, $rate),
		to         => 'the speed without',
		ratio_goal => [ '>=', 0.9 ]);
	row(%common,
		who    => 'taskshed, last tenth without a snapshot',
		values => field($without, 'last'),
		ratio  => ratios(field($without, 'last'), field($without, 'first')),
		to     => 'the first tenth');
	row(%common,
		who        => 'taskshed, last tenth with an old snapshot held',
		values     => $last,
		ratio      => ratios($last, $first),
		to         => 'the first tenth',
		ratio_goal => [ '>=', 0.9 ]);
	return;
}

1;
