/*-------------------------------------------------------------------------
 *
 * shortage.c
 *		Whether a process of ours has ended for want of something.
 *
 * A scheduler or a worker that does not get as far as its work is started again
 * later each time.  That is for what does not mend itself, as a broken catalog.
 * A full disk, no memory, no room for locks or connections: these pass, and
 * then nobody is to wait any longer for what is due.  Whoever decides when to
 * start the next process must know which of the two it was, and the process
 * that ends can say so, if it has seen its own last error.  FATAL ones cannot be
 * caught, and the hook that the server has for its log sees none that
 * log_min_messages keeps out of it.  But all ask for their context.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/elog.h"

#include "shared/shared.h"

/* Was the last error that there has been, caught or not, for want of something? */
static bool met = false;

/*
 * Look at an error.  Its level is not told here; but what is none has its code
 * as well, and for notices and the log that is seldom one of an error.
 */
static void
shortage_context(void *arg)
{
	int			category = ERRCODE_TO_CATEGORY(geterrcode());

	if (category != ERRCODE_SUCCESSFUL_COMPLETION && category != ERRCODE_WARNING)
		met = (category == ERRCODE_INSUFFICIENT_RESOURCES);
}

/*
 * Begin to look at errors: once in a process of ours, before what may fail,
 * where there is no context yet that would be left again.
 */
void
shortage_watch(void)
{
	static ErrorContextCallback context = {.callback = shortage_context};

	context.previous = error_context_stack;
	error_context_stack = &context;
}

/*
 * Return whether that is why this process ends.  For its exit callback, with
 * the code that this is given.  An error that it has survived is not: then it
 * ends of its own accord, with 0.
 */
bool
shortage_ends_process(int code)
{
	return code != 0 && met;
}

/*
 * Return whether an error is due to a full disk or the like.  If so, what has
 * failed is worth trying again in a while.
 */
bool
shortage_caused(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES;
}
