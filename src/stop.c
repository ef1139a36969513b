/*-------------------------------------------------------------------------
 *
 * stop.c
 *		Stopping a run: by a user's wish, or at the end of its time.
 *
 * A run can be stopped while its callback is being called, and only then: a
 * request names the run by the serial number that its worker has given it,
 * and the worker compares before it acts, within the signal handler.  So a
 * request that comes too late finds another number, or none, and does
 * nothing; the next run in the same worker is never hit.
 *
 * A run that has used up its time is stopped by a timer of its worker.  If the
 * callback catches that and goes on, the worker is ended after a grace
 * period; the scheduler then records the run as timed out.  One that does not
 * even notice, being in a loop without interrupts, is left alone and reported:
 * nothing but a SIGKILL would end it, and that restarts the server.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "taskshed.h"

/* The number of the run that can be stopped now, or 0. */
static volatile uint32 stoppable = 0;

/* Why it is being stopped. */
static volatile sig_atomic_t stop_reason = STOP_NONE;

/* The last request that was acted on: a callback may swallow it. */
static volatile uint64 last_request = 0;

static TimeoutId time_limit;

/* Acts on a request if it is meant for the run in progress. */
static void
stop_check_request(void)
{
	uint64		request = pg_atomic_read_u64(&ts_my_worker->stop_request);

	if (stoppable != 0 && (uint32) (request >> 32) == stoppable &&
		request != last_request && stop_reason != STOP_TIMEOUT)
	{
		last_request = request;
		stop_reason = (sig_atomic_t) (request & 0xff);
		QueryCancelPending = true;
		InterruptPending = true;
	}
}

static void
stop_signal_handler(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (ts_my_worker != NULL && !proc_exit_inprogress)
		stop_check_request();
	SetLatch(MyLatch);
	errno = save_errno;
}

/* First the run is cancelled; when that has not helped, the process ends. */
static void
stop_timeout_handler(void)
{
	if (stoppable == 0)
		return;
	if (stop_reason != STOP_TIMEOUT)
	{
		stop_reason = STOP_TIMEOUT;
		QueryCancelPending = true;
	}
	else if (!ts_my_worker->timed_out)
	{
		ts_my_worker->timed_out = true;
		ProcDiePending = true;
	}
	else if (!ts_my_worker->stuck)
	{
		ts_my_worker->stuck = true;
		worker_wake_scheduler_from_handler();
	}
	InterruptPending = true;
	SetLatch(MyLatch);
}

/* Once a worker. */
void
stop_init(void)
{
	time_limit = RegisterTimeout(USER_TIMEOUT, stop_timeout_handler);
	pqsignal(SIGUSR2, stop_signal_handler);
}

/*
 * From here on the run can be stopped.  timeout is in microseconds; 0 means
 * that it may take as long as it takes.
 */
void
stop_enable(int64 timeout)
{
	stop_reason = STOP_NONE;
	last_request = 0;
	ts_my_worker->ending = false;
	ts_my_worker->timed_out = false;
	ts_my_worker->stuck = false;
	stoppable = ts_my_worker->serial;
	if (timeout > 0)
		enable_timeout_every(time_limit, GetCurrentTimestamp() + timeout, STOP_GRACE);

	/* a request may have come since the scheduler showed the run */
	stop_check_request();
}

/* From here on it cannot. */
void
stop_disable(int64 timeout)
{
	stoppable = 0;
	if (timeout > 0)
		disable_timeout(time_limit, false);
}

/* Why the last run was stopped, if its error says that it was. */
StopReason
stop_get_reason(const ErrorData *error)
{
	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED)
		return STOP_NONE;
	return (StopReason) stop_reason;
}

/*
 * Asks the worker that runs a task to stop it.  Returns whether there is one,
 * and its run is not just being recorded.
 */
bool
stop_request(int64 id)
{
	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];
		int			pid = 0;

		SpinLockAcquire(&worker->mutex);
		if (worker->state == TS_WORKER_READY && worker->database == MyDatabaseId &&
			worker->running_id == id && !worker->ending)
		{
			uint64		last = pg_atomic_read_u64(&worker->stop_request);
			uint64		count = ((last >> 8) + 1) & 0xffffff;

			pid = worker->pid;
			pg_atomic_write_u64(&worker->stop_request,
								((uint64) worker->serial << 32) | (count << 8) | STOP_CANCEL);
		}
		SpinLockRelease(&worker->mutex);
		if (pid != 0)
		{
			kill(pid, SIGUSR2);
			return true;
		}
	}
	return false;
}
