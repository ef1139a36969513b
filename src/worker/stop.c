/*-------------------------------------------------------------------------
 *
 * stop.c
 *		Stopping a run: by a user's wish, or at the end of its time.
 *
 * A run can be stopped while its callback is being called, and only then: a
 * request, of cancel.c, names the run by the serial number that its worker has
 * given it, and the worker compares before it acts, within the signal handler.
 * So a request that comes too late finds another number and does nothing; the
 * next run in the same worker is never hit.
 *
 * A commit that waits for a standby does not fail any more.  The server's way to
 * cancel such a wait is a warning in the log, and the transaction is committed
 * here only.  If it was the one that ends the run, the run is over, and what it
 * has committed is its record.  A procedure that has committed something in
 * between is stopped when it is back.
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

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

/* The number of the run that can be stopped now, or 0. */
static volatile uint32 stoppable = 0;

/* Why it is being stopped. */
static volatile sig_atomic_t stop_reason = STOP_NONE;

/* The last request that was acted on: a callback may swallow it. */
static volatile uint64 last_request = 0;

/* Counts how often a callback was told to stop. */
static volatile uint32 stops = 0;

static TimeoutId time_limit;

/*
 * Act on a request if it is meant for the run in progress.  While its begin or
 * its end is being written, nothing but a wait for a standby looks at the flag.
 * After the begin the request is found again; after the end it is too late.
 */
static void
stop_check_request(void)
{
	uint64		request = pg_atomic_read_u64(&ts_my_worker->stop_request);

	if ((uint32) (request >> 32) != ts_my_worker->serial)
		return;
	if (stoppable != 0 && request != last_request && stop_reason != STOP_TIMEOUT)
	{
		last_request = request;
		stop_reason = STOP_CANCEL;
		stops++;
		QueryCancelPending = true;
		InterruptPending = true;
	}
	else if (stoppable == 0 && QueryCancelHoldoffCount > 0)
	{
		if (!ts_my_worker->ending)
			stop_reason = STOP_CANCEL;
		QueryCancelPending = true;
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

/* Cancel the run first; when that has not helped, end the process. */
static void
stop_timeout_handler(void)
{
	if (stoppable == 0)
		return;
	if (stop_reason != STOP_TIMEOUT)
	{
		stop_reason = STOP_TIMEOUT;
		stops++;
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
		slot_wake_scheduler_from_handler();
	}
	InterruptPending = true;
	SetLatch(MyLatch);
}

/*
 * Tell a callback that commits once more to stop, if it cannot have heard it: if that
 * came after its last look for it, and the commit was waiting for a standby, the wait
 * has taken the cancel for its own.
 */
static void
stop_xact_callback(XactEvent event, void *arg)
{
	static uint32 heard = 0;

	if (event == XACT_EVENT_PRE_COMMIT)
	{
		heard = stops;
		if (QueryCancelPending) /* not yet */
			heard--;
	}
	else if (event == XACT_EVENT_COMMIT && stoppable != 0 && stops != heard)
		InterruptPending = QueryCancelPending = true;
}

/* Get ready, once a worker. */
void
stop_init(void)
{
	RegisterXactCallback(stop_xact_callback, NULL);
	time_limit = RegisterTimeout(USER_TIMEOUT, stop_timeout_handler);
	pqsignal(SIGUSR2, stop_signal_handler);
}

/*
 * Let the run be stopped from here on.  timeout is in microseconds; 0 means
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

/* Let it not be stopped any more. */
void
stop_disable(int64 timeout)
{
	stoppable = 0;
	if (timeout > 0)
		disable_timeout(time_limit, false);
}

/* Return why the last run was stopped, if its error says that it was. */
StopReason
stop_get_reason(const ErrorData *error)
{
	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED)
		return STOP_NONE;
	return (StopReason) stop_reason;
}
