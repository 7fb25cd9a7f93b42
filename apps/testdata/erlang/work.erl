%% Two Erlang nodes that talk to each other: one asks, from many processes at a
%% time, the other answers; timers, tables, a port program and files beside it.
-module(work).
-export([answer/0, ask/0]).

answer() ->
    register(answering, self()),
    answer(0).

answer(N) ->
    receive
        {From, Ref, ask, K, Bin} ->
            spawn(fun() -> From ! {Ref, fib(K rem 16), erlang:md5(Bin)} end),
            answer(N + 1);
        {From, Ref, count} ->
            From ! {Ref, N},
            answer(N);
        stop ->
            init:stop()
    end.

fib(N) when N < 2 -> N;
fib(N) -> fib(N - 1) + fib(N - 2).

ask() ->
    Other = 'answer@127.0.0.1',
    await(Other),
    Table = ets:new(table, [ordered_set, public]),
    Port = open_port({spawn_executable, "/bin/cat"}, [stream, binary]),
    {ok, Progress} = file:open("progress", [append, raw]),
    {ok, Listener} = gen_tcp:listen(0, [binary, {packet, 4}, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Address} = inet:port(Listener),
    spawn_link(fun() -> {ok, S} = gen_tcp:accept(Listener), echo(S) end),
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Address, [binary, {packet, 4}, {active, false}]),
    lists:foreach(fun(Round) -> round(Round, Other, Table, Port, Socket, Progress) end, lists:seq(1, 100)),
    Ref = make_ref(),
    {answering, Other} ! {self(), Ref, count},
    receive {Ref, Count} -> io:format("~p answers~n", [Count]) end,
    {answering, Other} ! stop,
    io:format("~p entries, ~p~n", [ets:info(Table, size), erlang:phash2(ets:tab2list(Table))]),
    io:format("~p~n", [erlang:md5(term_to_binary(ets:tab2list(Table)))]),
    init:stop().

await(Other) ->
    case net_adm:ping(Other) of
        pong ->
            case rpc:call(Other, erlang, whereis, [answering]) of
                P when is_pid(P) -> ok;
                _ -> timer:sleep(20), await(Other)
            end;
        pang -> timer:sleep(20), await(Other)
    end.

echo(S) ->
    case gen_tcp:recv(S, 0) of
        {ok, B} -> ok = gen_tcp:send(S, lists:reverse(binary_to_list(B))), echo(S);
        {error, closed} -> ok
    end.

round(Round, Other, Table, Port, Socket, Progress) ->
    Self = self(),
    Timer = erlang:send_after(10, Self, {timer, Round}),
    Asking = [spawn_monitor(fun() ->
        Ref = make_ref(),
        Bin = binary:copy(<<Round:32, I:32>>, 500),
        {answering, Other} ! {self(), Ref, ask, I + Round, Bin},
        receive {Ref, Sum, Md5} -> ets:insert(Table, {{Round, I}, Sum, Md5}) end
    end) || I <- lists:seq(1, 40)],
    [receive {'DOWN', M, process, P, Why} -> normal = Why end || {P, M} <- Asking],
    Line = iolist_to_binary(io_lib:format("round ~p", [Round])),
    Port ! {Self, {command, Line}},
    ets:insert(Table, {{Round, port}, from(Port, byte_size(Line), <<>>)}),
    ok = gen_tcp:send(Socket, Line),
    {ok, Back} = gen_tcp:recv(Socket, 0),
    ets:insert(Table, {{Round, socket}, Back}),
    receive {timer, Round} -> ok end,
    false = erlang:cancel_timer(Timer),
    ok = file:write(Progress, [Line, "\n"]).

from(_, 0, Got) -> Got;
from(Port, Left, Got) ->
    receive {Port, {data, B}} -> from(Port, Left - byte_size(B), <<Got/binary, B/binary>>) end.
