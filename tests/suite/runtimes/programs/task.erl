-module(task).
-export([main/1]).

main(["hello"]) ->
    io:format("hello~n");
main(["thread"]) ->
    Self = self(),
    spawn(fun() -> Self ! {said, "thread"} end),
    receive {said, Word} -> io:format("~s~n", [Word]) end;
main(["subprocess"]) ->
    Port = open_port({spawn_executable, os:find_executable("echo")}, [{args, ["child"]}, exit_status]),
    receive {Port, {data, Said}} -> io:format("~s", [Said]) end;
main(["resolve"]) ->
    {ok, Name} = inet:gethostname(),
    {ok, Address} = inet:getaddr(Name, inet),
    io:format("~s~n", [inet:ntoa(Address)]);
main(["memory"]) ->
    take([]).

take(Taken) ->
    take([binary:copy(<<"x">>, 1 bsl 20) | Taken]).
